"""`stats`, `nodes`, `switchover`, `events` and `findings`: what goes on, and who leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from license_admin import lookup
from license_admin.commands.transfer import download_to
from license_admin.errors import NoServer
from license_admin.output import print_json
from license_admin.session import Session, connected, limit_option, request_id_option

_NODES = ("id", "rank", "role", "url", "beat_age_s", "applied_seq", "queue", "version")
_EVENTS = ("seq", "occurred_at", "type", "mode", "node", "license_id")
_WIDTHS = (8, 20, 22, 8, 16, 36)
_FINDINGS = ("found_at", "kind", "license_id", "node", "event_id")
_PAGE = 100


@click.command("stats")
@connected
def stats(session: Session) -> None:
    """Show what goes on: who leads, the nodes, licenses, machines, checks, what waits to be replayed, failovers."""
    found = session.api.get("/stats")
    if session.out.as_json:
        session.out.item(found)
        return
    own, lease = found["node"], found["lease"]
    summary = {
        "answered by": f"{own['id']} ({own['role']}, ledger {own['ledger']})",
        "leads": lease["holder"],
        "epoch": lease["epoch"],
        **{f"{part}": _counts(found[part]) for part in ("licenses", "machines")},
        "checks": _counts({name: found["checks"][name] for name in ("total", "valid", "denied", "last_hour")}),
        "sync": _counts({name: found["sync"][name] for name in ("total", "pending", "synced", "dead", "conflicts")}),
        "troubles": "; ".join(found.get("troubles", ())) or None,
    }
    session.out.item(summary)
    session.out.items(found["nodes"], _NODES, title="Nodes")
    if found["failovers"]:
        session.out.items(found["failovers"][:5], ("at", "from", "to", "kind", "epoch", "gap_s"), title="Failovers")


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {'?' if value is None else value}" for name, value in counts.items())


@click.group("nodes")
def nodes() -> None:
    """The nodes that beat, and which of them leads."""


@nodes.command("list")
@connected
def list_nodes(session: Session) -> None:
    """List the nodes, as last beaten."""
    session.out.items(session.api.get("/v1/nodes")["items"], _NODES)


def _hand_over(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("to", metavar="NODE")
    @request_id_option
    @connected
    def act(session: Session, to: str, request_id: str | None) -> None:
        session.out.item(session.api.post(f"/v1/nodes/actions/{name}", {"to": to}, request_id))

    return act


switchover = _hand_over("switchover", "Hand the lease from the node that leads to NODE (its id), which must beat.")
nodes.add_command(switchover)
nodes.add_command(_hand_over("promote", "Make NODE (its id) lead, whether or not anybody does now."))


@click.group("events")
def events() -> None:
    """The log of everything that was accepted."""


def _filters(command: Any) -> Any:
    for name, text in reversed(
        {
            "license": "Only of this license: its id, key, hint, e-mail or reference.",
            "type": "Only events of this type, such as activate or license.created.",
            "node": "Only events that this node took.",
        }.items()
    ):
        command = click.option(f"--{name}", name, help=text)(command)
    return command


@events.command("list")
@_filters
@click.option("--since", help="From this time on: RFC 3339, or Unix seconds.")
@click.option("--until", help="Before this time: RFC 3339, or Unix seconds.")
@click.option("--last", type=click.IntRange(min=1), help="Only of the last so many places of the log.")
@limit_option
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write all of them to this new CSV file.")
@connected
def list_events(session: Session, last: int | None, limit: int | None, file: Path | None, **given: str | None) -> None:
    """List events, the oldest first."""
    query = _resolved(session, given) | ({} if last is None else {"after": str(-last)})
    if file is not None:
        download_to(session, file, "/v1/events", "text/csv", limit=limit, **query)
        return
    session.out.items(session.api.every("/v1/events", limit, **query), (*_EVENTS, "data"))


@events.command("follow")
@_filters
@click.option("--last", type=click.IntRange(min=0), default=10, show_default=True, help="Begin with so many older.")
@click.option("--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many events.")
@connected
def follow(session: Session, last: int, interval: float, count: int | None, **given: str | None) -> None:
    """Print events as they come, until Ctrl-C. With --json a line for each."""
    query, shown = _resolved(session, given), 0
    after = _end_of(session, last)
    if not session.out.as_json:
        print(_line(_EVENTS))
    while True:
        try:
            page = session.api.get("/v1/events", after=after, limit=_PAGE, **query)
        except NoServer as error:
            session.out.note(f"{error}\nIt is tried again.")
            session.start.sleep(interval)
            continue
        for event in page["items"]:
            _print_event(session, event)
            after, shown = event["seq"], shown + 1
            if shown == count:
                return
        if page["next"] is None:
            session.start.sleep(interval)


def _end_of(session: Session, last: int) -> int:
    """The place of the log behind which the `last` events begin."""
    newest = session.api.get("/v1/events", after=-1, limit=1)["items"]
    return max(0, newest[0]["seq"] - last) if newest else 0


def _resolved(session: Session, given: dict[str, str | None]) -> dict[str, str | None]:
    if given.get("license") is None:
        return given
    return given | {"license": lookup.license_of(session.api, str(given["license"]))["id"]}


def _print_event(session: Session, event: dict[str, Any]) -> None:
    if session.out.as_json:
        print_json(event, indent=None)
    else:
        code = event["data"].get("code")
        print(_line([str(event[name] or "-") for name in _EVENTS]) + (f"  {code}" if code else ""), flush=True)


def _line(cells: Any) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(cells, _WIDTHS, strict=True)).rstrip()


@click.command("findings")
@click.option("--kind", help="Only of this kind; dead: events that were set aside.")
@click.option("--license", "which", help="Only of this license: its id, key, hint, e-mail or reference.")
@click.option("--node", help="Only of events that this node took.")
@limit_option
@connected
def findings(session: Session, kind: str | None, which: str | None, node: str | None, limit: int | None) -> None:
    """List what a replay found for you to look at: conflicts, and events that were set aside."""
    license = None if which is None else lookup.license_of(session.api, which)["id"]
    session.out.items(session.api.every("/v1/findings", limit, kind=kind, license=license, node=node), _FINDINGS)
