"""CSV: what a customer wrote stays text in a spreadsheet, and comes back as it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.resources.csv_text import guarded, to_csv, unguarded

DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")']


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("cell", DANGEROUS)
def test_a_cell_that_begins_like_a_formula_is_quoted(cell: str) -> None:
    text = "".join(to_csv(["name"], [{"name": cell}]))
    assert parsed(text) == [["name"], [f"'{cell}"]]


@pytest.mark.parametrize("cell", ["plain", "a=b", "it's", "", "5", "ü", 'a "quoted", word', "two\nlines"])
def test_an_ordinary_cell_is_left_alone(cell: str) -> None:
    assert guarded(cell) == cell
    assert parsed("".join(to_csv(["name"], [{"name": cell}]))) == [["name"], [cell]]


@given(st.text().filter(lambda text: not text.startswith("'")))
def test_quoting_can_be_undone(text: str) -> None:
    assert unguarded(guarded(text)) == text


def test_values_that_are_no_text_are_json_and_none_is_an_empty_cell() -> None:
    row = {"a": None, "b": 3, "c": ["x", "y"], "d": {"k": "=1"}}
    assert parsed("".join(to_csv("abcd", [row])))[1] == ["", "3", '["x","y"]', '{"k":"=1"}']


def test_rows_are_taken_only_as_the_text_is() -> None:
    taken = []

    def rows() -> Iterator[dict[str, int]]:
        for number in range(10_000):
            taken.append(number)
            yield {"n": number}

    text = to_csv(["n"], rows())
    assert next(text) == "n\r\n"
    assert taken == []
    first = next(text).splitlines()
    assert len(first) == len(taken) < 1_000
    assert len("".join(text).splitlines()) == 10_000 - len(first)
