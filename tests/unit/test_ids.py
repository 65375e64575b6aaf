"""Ids: sorted by time where they are random, the same for every retry where they are not."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid

from api.ids import new_id, retry_id


def test_new_ids_are_version_7_and_differ() -> None:
    ids = {new_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert {len(one) for one in ids} == {36}


def test_a_forked_process_draws_other_ids() -> None:
    """Of two that drew the same, ids of one millisecond would be the same."""
    script = "import os; from api.ids import new_id; os.fork(); os.write(1, new_id()[14:].encode() + b' ')"
    drawn = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert len(set(drawn.stdout.split())) == 2, drawn.stdout


def test_later_ids_sort_after_earlier_ones() -> None:
    earlier = new_id()
    time.sleep(0.003)
    assert earlier < new_id()


def test_the_time_of_an_id_is_now() -> None:
    milliseconds = uuid.UUID(new_id()).int >> 80
    assert abs(milliseconds / 1000 - time.time()) < 5


def test_a_retry_has_the_id_of_its_call() -> None:
    assert retry_id("usage", "hash", "request-1") == retry_id("usage", "hash", "request-1")
    # Written down: another release must find what this one left.
    assert retry_id("usage", "hash", "request-1") == "a9be6315-40cd-5f2a-a07d-299bb40d82e6"


def test_call_key_and_request_id_each_make_another_id() -> None:
    parts = [("usage", "hash", "request-1"), ("activate", "hash", "request-1"), ("usage", "other", "request-1")]
    parts += [("usage", "hash", "request-2"), ("usageh", "ash", "request-1"), ("usage", "hashr", "equest-1")]
    assert len({retry_id(*one) for one in parts}) == len(parts)
