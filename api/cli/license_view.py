"""A license as people read it: each limit with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.cli.output import cell

_INHERITABLE = {"max_machines": "unlimited", "max_uses": "unlimited", "entitlements": "none"}
#: What the others already say.
_LEFT_OUT = ("policy_name", "inherited")


def readable(license: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a license for a table or for lines: `3, from its policy`, `5, its own`."""
    shown = {name: value for name, value in license.items() if name not in _LEFT_OUT}
    limits = {name: _limit(license, name, none) for name, none in _INHERITABLE.items()}
    return shown | {"policy": f"{license['policy_name']} ({license['policy']})"} | limits


def _limit(license: Mapping[str, Any], name: str, none: str) -> str:
    inherited = license["inherited"]
    if name not in inherited:
        return f"{cell(license[name] or none)}, its own"
    return f"{none if inherited[name] in (None, []) else cell(inherited[name])}, from its policy"
