"""Secrets leave the environment: where their values stand in what the kernel handed over, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from api.config.clean_environ import values_of
from tests.support.processes import ROOT

_ENDS = """
import os, sys
from api.config.clean_environ import forget
forget(["API_KEY", "SIGNING_KEY", "NOT_SET"])
if os.fork() == 0:
    sys.stdout.buffer.write(open("/proc/self/environ", "rb").read())
    sys.stdout.flush()
    os._exit(0)
os.wait()
assert os.environ["HOME_OF"] == "a=b" and "API_KEY" not in os.environ
"""


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (b"A=1\0KEY=secret\0B=2\0", b"A=1\0KEY=\0\0\0\0\0\0\0B=2\0"),
        (b"KEY=\0KEYS=more\0MY_KEY=other\0", b"KEY=\0KEYS=more\0MY_KEY=other\0"),
        (b"KEY=a=b\0KEY=again\0", b"KEY=\0\0\0\0KEY=\0\0\0\0\0\0"),
        (b"KEY\0=KEY\0KEY=no end", b"KEY\0=KEY\0KEY=\0\0\0\0\0\0"),
        (b"", b""),
    ],
)
def test_the_values_of_the_names_and_nothing_else(block: bytes, left: bytes) -> None:
    written = bytearray(block)
    for at, length in values_of(frozenset({b"KEY"}), block):
        written[at : at + length] = bytes(length)
    assert bytes(written) == left


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc shows is Linux's")
def test_neither_a_process_nor_what_it_forks_shows_what_it_forgot() -> None:
    given = {"API_KEY": "first-secret", "SIGNING_KEY": "sécond secret", "HOME_OF": "a=b", "PATH": os.environ["PATH"]}
    ended = subprocess.run([sys.executable, "-c", _ENDS], env=given, cwd=ROOT, capture_output=True, check=True)
    shown = ended.stdout
    assert b"HOME_OF=a=b\0" in shown
    assert b"API_KEY=\0" in shown
    assert not [secret for secret in (b"first", "sécond".encode()) if secret in shown]
