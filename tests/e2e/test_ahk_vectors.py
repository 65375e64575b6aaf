"""The AutoHotkey clients and the file that all clients agree on: every case, under Wine."""

from __future__ import annotations

import json

from tests.support.wine import Script
from tests.vectors.generate import FILE

VECTORS = json.loads(FILE.read_text(encoding="ascii"))


def test_both_clients_agree_on_every_case(ahk: Script) -> None:
    steps = [{"do": "keys", "text": json.dumps(VECTORS["jwks"])}]
    steps += [{"do": "request", **case} for case in VECTORS["requests"]]
    steps += [{"do": "verdict", **case} for case in VECTORS["verdicts"]]
    steps += [{"do": "lease", **case} for case in VECTORS["leases"]]
    expected = [{"count": len(VECTORS["jwks"]["keys"])}]
    expected += [{"signature": case["signature"]} for case in VECTORS["requests"]]
    expected += [{"reason": case["expect"]} for case in VECTORS["verdicts"] + VECTORS["leases"]]
    told = dict(zip(map(named, steps), ahk.run(steps), strict=True))
    print(len(told), "cases")
    assert told == dict(zip(map(named, steps), expected, strict=True))
    assert len(told) == len(steps) > 200


def named(step: dict[str, str]) -> str:
    return f"{step['do']}: {step.get('name')}"
