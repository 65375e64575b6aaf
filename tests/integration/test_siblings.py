"""Several processes of one node under another server: one instance, and a lease that outlives each but the last."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from api.app import create_app
from api.config.settings import Settings
from api.ledger import tables
from api.ledger.database import Database
from api.node.siblings import Siblings
from api.runtime import Runtime
from tests.support.nodes import environment, rows
from tests.support.processes import until


def test_all_that_live_at_once_are_one_instance_and_the_last_knows_that_it_is(tmp_path: Path) -> None:
    first, second = Siblings(tmp_path, "node"), Siblings(tmp_path, "node")
    assert first.instance == second.instance
    assert not first.leave()
    third = Siblings(tmp_path, "node")
    assert third.instance == first.instance
    assert not second.leave()
    assert third.leave()
    assert Siblings(tmp_path, "node").instance != first.instance


def test_another_node_in_the_same_folder_is_no_sibling(tmp_path: Path) -> None:
    one, other = Siblings(tmp_path, "node"), Siblings(tmp_path, "other")
    assert one.instance != other.instance
    assert one.leave()
    assert other.leave()


def test_a_folder_that_takes_nothing_has_no_siblings_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one, other = Siblings(tmp_path / "file", "node"), Siblings(tmp_path / "file", "node")
    assert one.instance != other.instance
    assert one.leave()


def test_the_lease_goes_to_a_sibling_and_is_resigned_by_the_last(ledger_url: str, tmp_path: Path) -> None:
    """As when a server replaces its workers one after the other, and then ends."""
    settings = Settings.from_env(environment(ledger_url, tmp_path))
    with contextlib.closing(Database(ledger_url)) as database, contextlib.ExitStack() as stack:

        def process() -> Runtime:
            app = create_app(settings)
            app.test_client().get("/livez")  # its first request: it starts
            runtime: Runtime = app.extensions["runtime"]
            stack.callback(runtime.stop)
            return runtime

        def lease() -> dict[str, Any]:
            return next(iter(rows(database, tables.lease)), {})

        def is_led() -> bool:
            return bool(lease()) and lease()["expires_at"] > time.time() + 4

        first = process()
        until(is_led, "it leads", 60)
        before = lease()
        second = process()
        first.leave()
        until(is_led, "the second goes on", 60)
        third = process()
        second.leave()
        until(is_led, "the third goes on", 60)
        after = lease()
        assert (after["holder"], after["epoch"]) == (before["holder"], before["epoch"]) == (third.node.instance, 1)
        assert rows(database, tables.failovers) == []
        third.leave()
        assert lease()["expires_at"] <= time.time()
