"""Logs: one line a record, fields kept, secrets masked, nobody else's handlers touched."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from api import logs
from failover.jobs import Jobs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("protecao", "apscheduler")]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def written(format: logs.LogFormat = "json", level: str = "INFO", hide: tuple[str, ...] = ()) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, format, stream, hide)
    return stream


def one(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_is_one_json_object_with_its_fields() -> None:
    stream = written()
    logs.get("lease").info("role changed", extra={"role": "primary", "epoch": 7, "gap_s": 0.5, "to": None})
    record = one(stream)
    assert datetime.fromisoformat(record.pop("ts")).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert record == {
        "level": "INFO",
        "logger": "protecao.lease",
        "pid": os.getpid(),
        "message": "role changed",
        "role": "primary",
        "epoch": 7,
        "gap_s": 0.5,
        "to": None,
    }


def test_times_are_utc_whatever_the_zone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"msg": "x", "name": "protecao.x", "levelname": "INFO", "created": 1_764_000_000.25}
    record = logging.makeLogRecord(fields)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert json.loads(logs.JsonFormatter().format(record))["ts"] == "2025-11-24T16:00:00.250Z"
        assert logs.TextFormatter().format(record) == "2025-11-24T16:00:00.250Z INFO protecao.x x"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_text_record_is_one_line() -> None:
    stream = written("text")
    logs.get("lease").warning('a "quoted" message\nforged line', extra={"reason": "a b\nc", "epoch": 7})
    (line,) = stream.getvalue().splitlines()
    assert line.split(" ", 1)[1] == ('WARNING protecao.lease a "quoted" message\\nforged line reason="a b\\nc" epoch=7')


def test_a_field_cannot_take_the_place_of_a_fixed_member() -> None:
    stream = written()
    logs.get("x").info("said", extra={"level": "FORGED", "ts": 0, "logger": "other", "exception": "kept"})
    record = one(stream)
    assert (record["level"], record["logger"], record["exception"]) == ("INFO", "protecao.x", "kept")
    assert record["ts"] != 0


def test_anything_may_be_a_field() -> None:
    stream = written()
    extra = {"nan": float("nan"), "path": object, "text": "\udcff\u2028é", "nested": {1: [2, (3, {4})]}, "raw": b"\xff"}
    logs.get("x").info("odd", extra=extra)
    record = one(stream)
    assert record["nan"] == "nan"
    assert record["text"] == "\udcff\u2028é"
    assert record["nested"] == {"1": [2, [3, [4]]]}


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_traceback_is_kept_and_masked(format: logs.LogFormat) -> None:
    stream = written(format, hide=("s3cret-value-of-this-node",))
    try:
        raise RuntimeError("no route to postgresql://vendor:hunter2@db/ledger with s3cret-value-of-this-node")
    except RuntimeError:
        logs.get("x").exception("ledger is away", stack_info=True)
    text = stream.getvalue()
    assert "RuntimeError" in text
    assert "Stack (most recent call last)" in text
    assert "vendor:***@db" in text
    assert "hunter2" not in text
    assert "s3cret" not in text
    if format == "json":
        assert "RuntimeError" in one(stream)["exception"]


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "API_KEY", "secret", "shared_secrets", "token", "admin_token", "password", "authorization"],
)
def test_a_field_named_like_a_secret_is_masked(format: logs.LogFormat, name: str) -> None:
    stream = written(format)
    logs.get("x").info("said", extra={name: "PLAIN", "request": {name: ["PLAIN"]}, "key_hint": "ab12", "kid": "k1"})
    assert "PLAIN" not in stream.getvalue()
    assert "ab12" in stream.getvalue()
    assert "k1" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
def test_this_nodes_own_secrets_are_masked_wherever_they_appear(format: logs.LogFormat) -> None:
    stream = written(format, hide=('quote"and\\slash-1234', "plain-secret-567890", "plain-secret"))
    logs.get("x").info(
        "said %s", "plain-secret-567890", extra={"detail": 'a quote"and\\slash-1234 b', "path": "plain-secret"}
    )
    text = stream.getvalue()
    assert "567890" not in text
    assert "plain" not in text
    assert "slash" not in text


def test_a_private_key_is_masked() -> None:
    stream = written()
    logs.get("x").info("loaded", extra={"detail": "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"})
    assert "MIGH" not in stream.getvalue()


def test_records_below_the_level_are_left_out() -> None:
    stream = written(level="WARNING")
    logs.get("x").info("tick")
    assert stream.getvalue() == ""
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("LOUD")


def test_configured_twice_a_record_is_written_once() -> None:
    first, second = written(), written("text")
    logs.get("x").info("said")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_the_schedulers_warnings_are_records_too() -> None:
    stream = written(level="DEBUG")
    scheduler = logging.getLogger("apscheduler.scheduler")
    scheduler.info("tick")
    scheduler.warning('Execution of job "%s" skipped', "beat")
    record = one(stream)
    assert (record["logger"], record["level"]) == ("apscheduler.scheduler", "WARNING")
    assert record["message"] == 'Execution of job "beat" skipped'


def test_a_level_above_warning_is_the_schedulers_too() -> None:
    stream = written(level="ERROR")
    logging.getLogger("apscheduler.scheduler").warning("skipped")
    assert stream.getvalue() == ""


def test_a_job_is_logged_by_its_name() -> None:
    jobs = Jobs()
    jobs.every(60, "beat", lambda: None)
    (job,) = jobs._scheduler.get_jobs()
    assert str(job).startswith("beat (")


def test_no_other_logger_is_touched() -> None:
    root = logging.getLogger()
    mine = logging.NullHandler()
    logging.getLogger("protecao").addHandler(mine)
    before = (list(root.handlers), root.level)
    written()
    assert (list(root.handlers), root.level) == before
    assert mine in logging.getLogger("protecao").handlers
    assert not logging.getLogger("protecao").propagate


def test_without_a_stream_it_is_the_standard_error_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure()
    logs.get("x").info("said")
    assert one(stream)["message"] == "said"


def test_a_fork_in_the_middle_of_a_record_leaves_a_working_logger() -> None:
    """Another thread of the parent holds the handler's lock at the fork; the child must not wait for it."""
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w") as stream:
        logs.configure("INFO", "json", stream)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            (handler,) = (one for one in logging.getLogger("protecao").handlers if one.get_name() == "protecao.stream")
            with handler.lock:  # type: ignore[union-attr]
                held.set()
                done.wait(120)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(60)
        child = os.fork()
        if child == 0:
            logs.get("child").info("said")
            os._exit(0)
        readable, _, _ = select.select([reader], [], [], 60)
        done.set()
        holder.join(60)
        if not readable:
            os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(reader.readline())["pid"] == child
