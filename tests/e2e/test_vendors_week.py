"""A vendor's week without a shell: `license-admin` alone, at three nodes on one Postgres of which the first is dead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cluster import Site
from tests.support.license_admin import Vendor, rows_of
from tests.support.processes import until


@pytest.mark.usefixtures("own_folders")
def test_a_vendors_week(site: Site, tmp_path: Path) -> None:
    members = [site.node(rank) for rank in (1, 2, 3)]
    for member in members:
        member.ready()
    dead, *alive = members
    dead.server.kill_tree()
    servers, token = [member.server.url for member in members], dead.env["ADMIN_TOKEN"]
    vendor = Vendor(servers, tmp_path, token)

    # Monday: a product, its rules, and five licenses for a shop.
    vendor.ok("products", "create", "--code", "editor", "--name", "My editor")
    vendor.ok(
        "policies", "create", "--product", "editor", "--name", "yearly", "--duration-days", "365",
        "--max-machines", "2", "--floating",
    )  # fmt: skip
    file = tmp_path / "Loja do Jo\u00e3o.csv"
    vendor.ok("licenses", "create", "--policy", "yearly", "--count", "5", "--csv", str(file))
    rows = rows_of(file)
    assert len({row["key"] for row in rows}) == 5
    first, second = rows[0], rows[1]

    # Tuesday: a payment that bounced, and came after all.
    vendor.ok("licenses", "update", first["id"], "--email", "ana@example.com", "--external-ref", "order-7")
    assert vendor.json("licenses", "suspend", "ana@example.com")["status"] == "suspended"
    assert vendor.json("licenses", "reinstate", "order-7")["status"] == "active"

    # Wednesday: one more year, and a customer whose old PC is gone.
    renewed = vendor.json("licenses", "renew", first["key"])
    assert renewed["expires_at"] > first["expires_at"]
    for machine in ("old-pc", "new-pc"):
        vendor.ok("machines", "create", "--license", second["key"], "--fingerprint", machine)
    vendor.ok("machines", "free", "--license", second["key"], "--fingerprint", "old-pc")
    assert [one["fingerprint"] for one in vendor.json("machines", "list", "--license", second["id"])] == ["new-pc"]

    # Thursday: a colleague who may look and not touch.
    made = vendor.json("tokens", "create", "--name", "support", "--scope", "licenses:read", "--scope", "stats:read")
    colleague = Vendor(servers, tmp_path, made["token"])
    assert colleague.json("licenses", "show", "order-7")["id"] == first["id"]
    assert "licenses:write" in colleague.fails(5, "licenses", "ban", first["id"], "--yes")
    assert vendor.json("licenses", "show", first["id"])["status"] == "active"

    # Friday: a copy of everything, and a look at how it all is.
    export = tmp_path / "export.ndjson"
    vendor.ok("export", "--out", str(export), "--format", "ndjson")
    exported = [json.loads(line) for line in export.read_text(encoding="utf-8").splitlines()]
    assert {row["key_hint"] for row in exported} == {row["key"][-4:] for row in rows}
    stats = vendor.json("stats")
    assert (stats["licenses"]["total"], stats["licenses"]["active"], stats["machines"]["total"]) == (5, 5, 1)
    living = {member.id for member in alive}

    def dead_one_is_seen() -> bool:
        beating = {node["id"]: node["beat_age_s"] for node in vendor.json("nodes", "list")}
        # The leader forgets a dead one in time.
        return beating.get(dead.id, 1e9) > max(beating[id] for id in living)

    until(dead_one_is_seen, "the dead node's beat is the oldest")
    types = [event["type"] for event in vendor.json("events", "list", "--license", first["id"])]
    assert types == [
        "license.updated", "license.suspended", "license.reinstated", "license.renewed",
    ]  # fmt: skip
