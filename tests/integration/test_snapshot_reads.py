"""What is answered from the snapshot: yes, and only while it is fresh and younger than what this node wrote itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from api.node.shared_state import SharedState
from api.snapshot.reader import MAX_AGE_S
from tests.support.admin import Admin
from tests.support.nodes import Node, running_node
from tests.support.processes import until


class Counted:
    """How often a node asked its ledger about licenses."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        ledger = node.runtime.ledger
        look_up = ledger.look_up

        def counted(asks: Any) -> Any:
            self.asked += any(ask.key_hash for ask in asks)
            return look_up(asks)

        monkeypatch.setattr(ledger, "look_up", counted)


def switched_on(node: Node) -> Node:
    node.runtime.reader.max_age_s = MAX_AGE_S
    return node


@pytest.fixture
def node(ledger_url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(ledger_url, tmp_path / "a") as node:
        yield switched_on(node)


@pytest.fixture
def admin(node: Node) -> Admin:
    return Admin(node)


def sold(admin: Admin) -> dict[str, Any]:
    return admin.license()


def from_snapshot(node: Node, key: str, counted: Counted) -> bool:
    """Whether a validate was answered without asking the ledger."""
    before = counted.asked
    assert node.call("validate", key).code == "VALID"
    return counted.asked == before


def test_a_yes_comes_from_the_snapshot_and_its_event_is_in_the_ledger(
    node: Node, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    license, counted = sold(admin), Counted(node, monkeypatch)
    until(lambda: from_snapshot(node, license["key"], counted), "an answer from the snapshot")
    sent = node.now()
    answer = node.call("validate", license["key"])
    assert answer.body["durability"] == "ledger"
    assert sent - MAX_AGE_S - 1 <= answer.body["as_of"] <= answer.body["ts"]
    assert answer.claims is not None
    assert answer.claims["jti"] in {event["event_id"] for event in admin.events(license)}


def test_a_no_is_confirmed_in_the_ledger(node: Node, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    license, counted = sold(admin), Counted(node, monkeypatch)
    until(lambda: from_snapshot(node, license["key"], counted), "an answer from the snapshot")
    before = counted.asked
    assert node.call("validate", license["key"], fingerprint="elsewhere").code == "NO_MACHINE"
    assert counted.asked == before + 1


@pytest.mark.parametrize("action", ["suspend", "ban"])
def test_a_revocation_counts_at_once_on_its_node_for_all_workers(
    node: Node, admin: Admin, action: str, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    license, counted = sold(admin), Counted(node, monkeypatch)
    until(lambda: from_snapshot(node, license["key"], counted), "an answer from the snapshot")
    with running_node(ledger_url, tmp_path / "a") as other_worker:
        switched_on(other_worker)
        admin.ok("POST", f"/licenses/{license['id']}/actions/{action}", {})
        assert not node.call("validate", license["key"]).body["valid"]
        assert not other_worker.call("validate", license["key"]).body["valid"]


def test_a_revocation_counts_within_a_second_on_another_node(
    node: Node, admin: Admin, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    license = sold(admin)
    with running_node(ledger_url, tmp_path / "b", NODE_ID="b", NODE_RANK="2") as other:
        counted = Counted(switched_on(other), monkeypatch)
        until(lambda: from_snapshot(other, license["key"], counted), "an answer from the snapshot")
        admin.ok("POST", f"/licenses/{license['id']}/actions/suspend", {})
        # A poll every quarter of a second; the rest is for noisy machines.
        until(lambda: not other.call("validate", license["key"]).body["valid"], "the revocation elsewhere", deadline=20)


def test_what_this_node_wrote_is_seen_by_its_next_check(
    node: Node, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    license, counted = sold(admin), Counted(node, monkeypatch)
    for _ in range(5):
        assert node.call("activate", license["key"], fingerprint="pc").code == "VALID"
        until(lambda: from_snapshot(node, license["key"], counted), "an answer from the snapshot")
        assert node.call("validate", license["key"], fingerprint="pc").code == "VALID"
        assert node.call("deactivate", license["key"], fingerprint="pc").code == "VALID"
        assert node.call("validate", license["key"], fingerprint="pc").code == "NO_MACHINE"


def test_without_a_follower_the_ledger_itself_is_read(
    node: Node, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    license, counted = sold(admin), Counted(node, monkeypatch)
    until(lambda: from_snapshot(node, license["key"], counted), "an answer from the snapshot")
    node.runtime._stop.set()
    with FileLock(tmp_path / "a" / "supervisor.lock", timeout=60):  # it has ended, and its follower with it
        until(lambda: not from_snapshot(node, license["key"], counted), "an answer from the ledger")
        assert not from_snapshot(node, license["key"], counted)


def test_a_key_that_the_snapshot_knows_needs_no_place_among_the_unknown(
    node: Node, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    license = sold(admin)
    key_hash = node.call("validate", license["key"]).claims["kh"]  # type: ignore[index]
    until(lambda: node.runtime.reader.has_key(key_hash), "the key in the snapshot")
    keys = node.runtime.unknown_keys
    keys._known.clear()
    for number in range(10):
        keys.enter(f"unknown {number}")
    assert keys.enter(key_hash) is None


def test_moments_of_change_are_told_by_key_and_for_everything(tmp_path: Path) -> None:
    now = [100.0]
    one, other = (SharedState(tmp_path / "state.bin", lambda: now[0]).changes for _ in range(2))
    one.license_changed("a")
    now[0] = 200.0
    assert other.changed_at("a") == 100.0
    assert other.changed_at("b") == 0.0
    one.everything_changed()
    assert other.changed_at("a") == other.changed_at("b") == 200.0
