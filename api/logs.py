"""Logs of this project: JSON lines, or text, on one stream; constant messages with fields, times in UTC.

Only the loggers `protecao` and `apscheduler` are touched. No thread and no queue, so a fork at any moment leaves a
working logger.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["json", "text"]

ROOT = "protecao"
_SCHEDULER = "apscheduler"
_HANDLER = "protecao.stream"
_MASK = "***"
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_FIELD = re.compile(
    r"(^|_)(key|keys|secret|secrets|token|tokens|password|passwd|authorization|cookie|pem)$", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@\"']*:)[^\s\"']+(@)")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)


def get(name: str) -> logging.Logger:
    """The logger `protecao.<name>`. Pass fields by `extra=`; the message itself stays constant."""
    return logging.getLogger(f"{ROOT}.{name}")


def configure(
    level: str | int = "INFO", format: LogFormat = "json", stream: TextIO | None = None, hide: Collection[str] = ()
) -> None:
    """Send this project's records of `level` and above to `stream` (standard error), one line each.

    The scheduler's go there too, from WARNING on: below that it tells of every single tick.
    `hide`: secrets of this node, masked wherever they appear. Called again, it replaces what it set up before.
    Raises ValueError for an unknown level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.set_name(_HANDLER)
    handler.setFormatter((JsonFormatter if format == "json" else TextFormatter)(hide))
    own, scheduler = logging.getLogger(ROOT), logging.getLogger(_SCHEDULER)
    own.setLevel(level)
    scheduler.setLevel(max(own.level, logging.WARNING))
    for logger in (own, scheduler):
        _attach(handler, logger)


def _attach(handler: logging.Handler, logger: logging.Logger) -> None:
    """Makes `handler` the one of this module at `logger`; those of others stay."""
    for old in [one for one in logger.handlers if one.get_name() == _HANDLER]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False


class _Formatter(logging.Formatter):
    """What both formats share: the fields of a record, its time, and the masking of secrets."""

    def __init__(self, hide: Collection[str] = ()) -> None:
        super().__init__()
        written = {form for secret in hide if secret for form in (secret, json.dumps(secret)[1:-1])}
        longest_first = sorted(written, key=len, reverse=True)
        self._hidden = re.compile("|".join(map(re.escape, longest_first))) if written else None

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, or more where a text record carries a traceback."""
        line = self.line(record)
        return self._hidden.sub(_MASK, line) if self._hidden else line

    def line(self, record: logging.LogRecord) -> str:
        """The line before this node's own secrets are masked."""
        raise NotImplementedError

    def trace(self, record: logging.LogRecord) -> str:
        """The record's traceback and stack, or an empty text."""
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        stack = self.formatStack(record.stack_info) if record.stack_info else ""
        return _masked("\n".join(part for part in (exception, stack) if part))


class JsonFormatter(_Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `pid`, `message`, the fields, `exception`."""

    def line(self, record: logging.LogRecord) -> str:
        """The record as JSON in ASCII. A field cannot replace one of the fixed members."""
        fixed: dict[str, Any] = {
            "ts": _utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": _masked(record.getMessage()),
        }
        if trace := self.trace(record):
            fixed["exception"] = trace
        return json.dumps(fixed | _fields(record) | fixed)


class TextFormatter(_Formatter):
    """`<time> <level> <logger> <message> name=value ...`, then the traceback if there is one."""

    def line(self, record: logging.LogRecord) -> str:
        """The record as text; line breaks inside message and fields are escaped."""
        message = json.dumps(_masked(record.getMessage()), ensure_ascii=False)[1:-1].replace('\\"', '"')
        parts = [_utc(record.created), record.levelname, record.name, message]
        parts += [f"{name}={json.dumps(value)}" for name, value in _fields(record).items()]
        return "\n".join(part for part in (" ".join(parts), self.trace(record)) if part)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = {name: value for name, value in vars(record).items() if name not in _RECORD_FIELDS}
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: object) -> Any:
    """`value` as JSON can hold it, with what its name or its look betrays as a secret masked."""
    if _SECRET_FIELD.search(name):
        return _MASK
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, dict):
        return {str(inner): _plain(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, item) for item in value]
    return _masked(str(value))


def _masked(text: str) -> str:
    return _PEM.sub(_MASK, _URL_PASSWORD.sub(rf"\1{_MASK}\2", text))
