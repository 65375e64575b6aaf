"""The log as admins read it: JSON pages and streamed CSV, filtered, in the order of `seq`."""

from __future__ import annotations

import csv
import io
import json
import time
import uuid
from collections.abc import Iterator

import pytest
from werkzeug.test import TestResponse

from api.admin.event_log import COLUMNS
from api.ledger import tables
from api.node.clock import timestamp
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def csv_of(admin: Admin, query: str = "") -> list[dict[str, str]]:
    response = admin.send("GET", f"/events{query}", Accept="text/csv")
    assert (response.status_code, response.content_type) == (200, "text/csv; charset=utf-8"), response.text
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


def add_events(admin: Admin, count: int, **columns: object) -> None:
    """Rows of the log as other nodes would have written them."""
    head, table = tables.log_head, tables.events
    row = {"type": "validate", "node": "other", "instance": "i", "epoch": 0, "mode": "normal", "data": "{}"} | columns
    times = {"occurred_at": time.time(), "recorded_at": time.time()}
    with admin.node.database.writing() as connection:
        connection.execute(head.update().values(seq=head.c.seq + count))
        seq = connection.execute(head.select()).one().seq
        new = [{**times, **row, "seq": seq - i, "event_id": str(uuid.uuid4())} for i in range(count)]
        connection.execute(table.insert(), new)


def test_an_event_tells_what_happened_where_and_when(admin: Admin) -> None:
    license = admin.license()
    admin.node.call("activate", license["key"], fingerprint="here")
    made, activated = admin.events(license)
    node = admin.node.runtime.node
    assert tuple(made) == COLUMNS
    assert (made["type"], made["data"]) == ("license.created", {"policy": license["policy"]})
    assert (activated["type"], activated["data"]["code"]) == ("activate", "VALID")
    assert (activated["node"], activated["instance"], activated["mode"]) == (node.id, node.instance, "normal")
    assert activated["machine_id"] == admin.ok("GET", f"/machines?license={license['id']}")["items"][0]["id"]
    assert made["seq"] < activated["seq"]


def test_pages_follow_the_log_while_it_grows(admin: Admin) -> None:
    license = admin.license()
    for _ in range(5):
        admin.node.call("validate", license["key"])
    seen: list[Json] = []
    page = admin.ok("GET", f"/events?license={license['id']}&limit=2")
    while page["next"] is not None:
        seen += page["items"]
        if len(seen) < 8:
            admin.node.call("validate", license["key"])
        page = admin.ok("GET", f"/events?license={license['id']}&limit=2&cursor={page['next']}")
    seen += page["items"]
    expected = rows(admin.node.database, tables.events, license_id=license["id"])
    assert [event["seq"] for event in seen] == [event["seq"] for event in expected]
    assert len(seen) > 6


def test_each_filter_shows_its_events_only(admin: Admin) -> None:
    license = admin.license()
    mark = f"node-{uuid.uuid4().hex[:8]}"
    add_events(admin, 3, node=mark, type="ping", occurred_at=1_000_000_000.0, license_id=license["id"])
    add_events(admin, 1, node=mark, type="usage", occurred_at=1_000_000_100.0)

    def count(query: str) -> int:
        found = len(admin.ok("GET", f"/events?{query}&limit=100")["items"])
        assert len(csv_of(admin, f"?{query}")) == found
        return found

    assert count(f"node={mark}") == 4
    assert count(f"node={mark}&type=ping") == 3
    assert count(f"license={license['id']}&type=ping") == 3
    assert count(f"node={mark}&since=1000000100") == 1
    assert count(f"node={mark}&until=1000000100") == 3
    assert count(f"node={mark}&until={timestamp(1_000_000_100.0)}") == 3
    assert count(f"node={mark}&since=2001-09-09T03:46:40%2B02:00&until=2001-09-09T03:48:20%2B02:00") == 3


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("text", ["now", "2026-01-01", "2026-01-01T00:00:00", "-1", "1e99", "9" * 40, "nan"])
def test_a_time_that_is_none_is_refused(admin: Admin, name: str, text: str) -> None:
    for headers in ({}, {"Accept": "text/csv"}):
        problem = admin.problem("GET", f"/events?{name}={text}", **headers)
        assert (problem["code"], problem["field"]) == ("MALFORMED", name)


def test_csv_has_the_same_events_as_json(admin: Admin) -> None:
    license = admin.license(name="Ada")
    admin.node.call("validate", license["key"], fingerprint="x")
    items = admin.events(license)
    table = csv_of(admin, f"?license={license['id']}")
    assert tuple(table[0]) == COLUMNS
    assert [int(row["seq"]) for row in table] == [item["seq"] for item in items]
    assert [json.loads(row["data"]) for row in table] == [item["data"] for item in items]
    assert [row["machine_id"] for row in table] == ["", ""]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula(admin: Admin, start: str) -> None:
    mark = uuid.uuid4().hex[:12]
    add_events(admin, 1, node=f"{start}cmd|' /C calc'!A0", type=mark)
    assert csv_of(admin, f"?type={mark}")[0]["node"] == f"'{start}cmd|' /C calc'!A0"
    assert admin.ok("GET", f"/events?type={mark}")["items"][0]["node"] == f"{start}cmd|' /C calc'!A0"


def test_csv_is_streamed_in_chunks_and_ends_though_the_log_goes_on(admin: Admin) -> None:
    mark = uuid.uuid4().hex[:12]
    add_events(admin, 1_203, type=mark)
    response = admin.node.http.get(
        f"/v1/events?type={mark}",
        headers={"Authorization": f"Bearer {admin.token}", "Accept": "text/csv"},
        buffered=False,
    )
    chunks = iter(response.response)
    assert next(chunks).startswith(b"seq,event_id,type")  # type: ignore[arg-type]
    text = b""
    for count, chunk in enumerate(chunks, start=1):
        text += chunk  # type: ignore[operator]
        add_events(admin, 600, type=mark)
        assert count <= 3
    seqs = [int(line.partition(b",")[0]) for line in text.splitlines()]
    assert len(seqs) == 1_203
    assert seqs == sorted(seqs)


def test_csv_ends_after_limit_rows(admin: Admin) -> None:
    mark = uuid.uuid4().hex[:12]
    add_events(admin, 3, type=mark)
    seqs = [row["seq"] for row in csv_of(admin, f"?type={mark}")]
    assert [row["seq"] for row in csv_of(admin, f"?type={mark}&limit=2")] == seqs[:2]
    assert len(csv_of(admin, f"?type={mark}&limit=1000000")) == 3


@pytest.mark.parametrize("limit", ["0", "-1", "1000001", "9" * 40, "many", ""])
def test_a_limit_of_csv_out_of_range_is_refused(admin: Admin, limit: str) -> None:
    problem = admin.problem("GET", f"/events?limit={limit}", Accept="text/csv")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "limit")


def test_csv_has_no_pages_and_no_unknown_filters(admin: Admin) -> None:
    for name in ("cursor", "colour"):
        problem = admin.problem("GET", f"/events?{name}=1", Accept="text/csv")
        assert (problem["code"], problem["field"]) == ("MALFORMED", name)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "", "text/csv;q=0.1, application/json"])
def test_json_is_what_others_than_csv_readers_get(admin: Admin, accept: str) -> None:
    response = admin.send("GET", "/events?limit=1", Accept=accept)
    assert (response.status_code, response.content_type) == (200, "application/json")


def test_a_few_exports_run_at_a_time_and_the_next_is_told_when_to_come_back(admin: Admin) -> None:
    def ask() -> TestResponse:
        sent = {"Authorization": f"Bearer {admin.token}", "Accept": "text/csv"}
        return admin.node.http.get("/v1/events", headers=sent, buffered=False)

    add_events(admin, 2000)
    held = [ask() for _ in range(4)]
    assert [each.status_code for each in held] == [200] * 4
    refused = ask()
    assert (refused.status_code, refused.get_json()["code"]) == (429, "RATE_LIMITED")
    assert refused.headers["Retry-After"] == "5"
    assert admin.send("GET", "/events").status_code == 200, "pages are not meant"
    held[0].close()  # nothing of it was read
    next(iter(held[1].response))
    held[1].close()
    assert len(held[2].get_data()) > 100_000
    for _ in range(3):
        assert len(csv_of(admin)) >= 2000
        assert admin.send("GET", "/events?type=none", Accept="text/csv").status_code == 200
        assert admin.send("GET", "/events?limit=x", Accept="text/csv").status_code == 400
    held[3].close()
