"""Every state that an operator has to see to, as the sentence that `/readyz` and `/stats` show and the log keeps.

`docs/operations.md` has a row for each, with what to do about it; a test keeps the two together.
"""

from __future__ import annotations

from enum import Enum


class Trouble(Enum):
    """A trouble's sentence, with its facts in braces. Called with those facts, it gives the sentence to show."""

    DISK = (
        "DATA_DIR takes nothing: without a copy of the ledger and a queue this node answers from the ledger alone, and "
        "has no part in who leads"
    )
    SUPERVISOR_MISSING = (
        "no supervisor of this node runs where its web processes do: this node answers from the ledger alone, and has "
        "no part in who leads; start flask node run-supervisor on this machine, with the same settings"
    )
    RANK_TWICE = (
        "{nodes} all say that they have rank {rank}: each node's NODE_RANK must be its own place in the clients' list"
    )
    NODE_TWICE = (
        "{processes} processes say that they are node {node}, for longer than a deploy takes: give each node a NODE_ID "
        "and a NODE_RANK of its own, or end the one that is not meant"
    )
    FOLDER_SHARED = (
        "another node's process ({node}) has this node's DATA_DIR: this node answers and has no part in who leads; "
        "give each node a DATA_DIR of its own, or end the one that is not meant"
    )
    PEER_UNSEEN = (
        "PEER_URLS names {urls}, and no node that beats in this node's ledger has that NODE_URL: give all nodes the "
        "same DATABASE_URL, and each its own NODE_URL"
    )
    SETTING_DIFFERS = (
        "{setting} is not the same on all nodes: {values}. What one of them takes another refuses: give all nodes of "
        "a ledger the same"
    )
    WALL_CLOCK = "this machine's wall clock is over {seconds} s {way} the ledger's, by which all answers go"
    READ_ONLY = "the ledger takes reads only ({reason}): this node answers from its own copy meanwhile"
    LEDGER = "the ledger cannot be used ({reason}): this node answers from its own copy meanwhile"
    LEDGER_CLOCK = (
        "the ledger's clock was set: it said {ledger} where this node knew it to be {own}. This node goes on by its "
        "own, until they agree again or flask node trust-clock says that the ledger's is right"
    )
    CLOCKS = (
        "no two clocks agree: the ledger's said {ledger}, this node's {own}, and this machine's {wall}. This node "
        "signs nothing until two agree, or flask node trust-clock says that the ledger's is right"
    )
    OWN_CLOCK = (
        "this machine's clock said {wall}, which is before what was known or signed at {own}. This node signs nothing "
        "until that is put right, or flask node trust-clock says that it is"
    )
    COPY = "this node's copy of the ledger cannot be written ({reason}): every check reads the ledger itself"
    NOT_ADOPTED = (
        "the ledger of these settings has no licenses, and this node's folder holds the copy of ledger {copied}, which "
        "had some: this node waits until the settings name that one again, or flask db adopt says that this is meant"
    )
    FILE_MOVED = (
        "the embedded ledger {file} is not where it was: this node waits until it is put back, or flask db adopt says "
        "that a new one is meant"
    )
    CONTRADICTED = (
        "the ledger does not show what this node's copy of it holds, and its log tells of no deletion: nothing is "
        "denied on its word"
    )
    COUNTS = (
        "the seats kept with {licenses} licenses were not those of their machines, and were put right: something else "
        "writes to these tables"
    )
    QUEUE = "this node's queue cannot be used ({reason}): it answers nothing while the ledger is away"
    QUEUE_FULL = "this node's queue is full: it takes nothing more until the ledger is back"
    QUEUE_NEARLY_FULL = "this node's queue is nearly full"
    LOCKED = (
        "other sessions of the database lock tables that every call needs: this node goes on without its ledger until "
        "they let go"
    )
    QUEUE_OF_ANOTHER_LEDGER = (
        "{file} beside this node's queue holds events of another ledger: give a node that ledger and this file as its "
        "QUEUE_PATH, or move the file away"
    )
    QUEUE_HELD_UP = (
        "events in this node's queue are not taken by the ledger ({reason}): they are sent again until it takes them, "
        "and those of other licenses go on"
    )
    QUEUE_NOT_TAKEN = (
        "the ledger takes none of the events in this node's queue ({reason}): they are sent again until it does"
    )
    SET_ASIDE = (
        "{count} events of this node's queue are set aside, the oldest of {oldest}: flask events dead shows them and "
        "why, flask events revive brings them back"
    )

    def __call__(self, **facts: object) -> str:
        """The sentence with its facts filled in."""
        return self.value.format(**facts)
