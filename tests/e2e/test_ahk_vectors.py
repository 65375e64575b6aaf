"""The AutoHotkey clients and the file that all clients agree on: every case, under Wine."""

from __future__ import annotations

import json

from tests.support.wine import Script
from tests.vectors.generate import FILE, KEYS_FILE

VECTORS = json.loads(FILE.read_text(encoding="ascii"))
PAIRS = json.loads(KEYS_FILE.read_text(encoding="ascii"))["pairs"]


def test_every_pasted_key_has_its_one_form_and_a_slip_is_noticed_in_both_clients(ahk: Script) -> None:
    again = [{**pair, "name": f"{pair['name']}, again", "text": pair["key"]} for pair in PAIRS]
    steps = [{"do": "key", "name": pair["name"], "text": pair["text"]} for pair in PAIRS + again]
    told = dict(zip(map(named, steps), ahk.run(steps), strict=True))
    expected = [{"key": pair["key"], "mistyped": pair["mistyped"]} for pair in PAIRS + again]
    assert told == dict(zip(map(named, steps), expected, strict=True))
    assert len(told) == 2 * len(PAIRS) > 100


def test_both_clients_agree_on_every_case(ahk: Script) -> None:
    steps = [{"do": "keys", "text": json.dumps(VECTORS["jwks"])}]
    steps += [{"do": "request", **case} for case in VECTORS["requests"]]
    steps += [{"do": "verdict", **case} for case in VECTORS["verdicts"]]
    steps += [{"do": "lease", **case} for case in VECTORS["leases"]]
    steps += [{"do": "tokenHash", **case} for case in VECTORS["token_hashes"]]
    judged = VECTORS["verdicts"] + VECTORS["leases"] + VECTORS["token_hashes"]
    expected = [{"count": len(VECTORS["jwks"]["keys"])}]
    expected += [{"signature": case["signature"]} for case in VECTORS["requests"]]
    expected += [{"reason": case["expect"]} for case in judged]
    told = dict(zip(map(named, steps), ahk.run(steps), strict=True))
    print(len(told), "cases")
    assert told == dict(zip(map(named, steps), expected, strict=True))
    assert len(told) == len(steps) > 200


def named(step: dict[str, str]) -> str:
    return f"{step['do']}: {step.get('name')}"
