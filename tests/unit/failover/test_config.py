"""Durations that contradict each other are refused, all at once."""

from __future__ import annotations

import pytest

from failover.config import Config
from failover.errors import ConfigError


def test_the_defaults_are_sound() -> None:
    assert Config().trust == 5.5


@pytest.mark.parametrize(
    ("fault", "values"),
    [
        ("heartbeat_timeout", {"heartbeat_interval": 6.0, "heartbeat_timeout": 6.0}),
        ("heartbeat_timeout", {"heartbeat_interval": 3.0, "heartbeat_timeout": 6.0}),
        ("heartbeat_timeout", {"margin": 6.0}),
        ("heartbeat_interval must be at least poll", {"poll": 2.0, "stagger": 2.0}),
        ("stagger", {"stagger": 0.1}),
        ("margin must be more than 0", {"margin": 0.0}),
        ("failback_delay must not be negative", {"failback_delay": -1.0}),
        ("poll must be more than 0", {"poll": float("nan")}),
    ],
)
def test_a_contradiction_is_named(fault: str, values: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**values)
    assert any(fault in said for said in caught.value.faults)


def test_a_timeout_equal_to_the_renew_interval_is_refused() -> None:
    with pytest.raises(ConfigError):
        Config(heartbeat_interval=1.5, heartbeat_timeout=1.5, margin=0.1)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(poll=-1.0, stagger=-2.0, probe_interval=-3.0, margin=9.0)
    assert len(caught.value.faults) == 5
