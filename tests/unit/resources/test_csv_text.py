"""A CSV answer that breaks off midway cannot be taken for a whole one."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pytest

from api.admin.csv_text import BROKEN_OFF, marked_if_broken, to_csv
from api.ledger.errors import LedgerUnavailable


def rows(count: int, breaks: bool) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {"seq": number, "text": "=1+1"}
    if breaks:
        raise LedgerUnavailable("gone")


def test_a_whole_file_is_as_it_was() -> None:
    whole = list(to_csv(("seq", "text"), rows(1200, breaks=False)))
    assert list(marked_if_broken(whole)) == whole


def test_a_file_that_breaks_off_ends_in_what_no_strict_reader_takes_and_the_error_is_raised() -> None:
    answer = marked_if_broken(to_csv(("seq", "text"), rows(1200, breaks=True)))
    sent = []
    with pytest.raises(LedgerUnavailable):
        sent.extend(answer)
    # `extend` keeps what came before the error.
    text = "".join(sent)
    assert text.startswith("seq,text\r\n0,")
    assert text.endswith(BROKEN_OFF)
    with pytest.raises(csv.Error):
        list(csv.reader(text.splitlines(keepends=True), strict=True))
    *_, last = csv.reader(text.splitlines(keepends=True))
    assert "INCOMPLETE" in last[0]
