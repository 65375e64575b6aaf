"""Limits on failures: by address and by what was presented, each for itself."""

from __future__ import annotations

from api.config.values import RateLimit
from api.node.shared_state import SharedState
from api.web.rate_limit import FailureLimiter
from tests.support.clock import FakeClock

ADDRESS, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def limiter(clock: FakeClock) -> FailureLimiter:
    return FailureLimiter(SharedState(None, clock).failures, RateLimit(3, 60.0))


def test_nobody_is_limited_before_the_last_failure_that_is_allowed() -> None:
    limit = limiter(FakeClock())
    for _ in range(2):
        limit.failed(ADDRESS, "key")
        assert limit.retry_after(ADDRESS, "key") is None
    limit.failed(ADDRESS, "key")
    assert limit.retry_after(ADDRESS, "key") == 60.0


def test_address_and_presented_key_are_each_limited_everywhere() -> None:
    limit = limiter(FakeClock())
    for _ in range(3):
        limit.failed(ADDRESS, "key")
    assert limit.retry_after(ADDRESS, None) == 60.0
    assert limit.retry_after(ADDRESS, "another") == 60.0
    assert limit.retry_after(ELSEWHERE, "key") == 60.0
    assert limit.retry_after(ELSEWHERE, "another") is None
    assert limit.retry_after(ELSEWHERE, None) is None


def test_an_address_and_a_key_of_the_same_text_are_two() -> None:
    limit = limiter(FakeClock())
    for _ in range(3):
        limit.failed(ADDRESS, None)
    assert limit.retry_after(ELSEWHERE, ADDRESS) is None


def test_the_longer_wait_of_the_two_is_told() -> None:
    clock = FakeClock()
    limit = limiter(clock)
    for _ in range(3):
        limit.failed(ADDRESS, None)
    clock.time += 20
    for number in range(3):
        limit.failed(f"203.0.113.{number}", "key")
    assert limit.retry_after(ADDRESS, "key") == 60.0
    assert limit.retry_after(ADDRESS, None) == 40.0


def test_the_wait_is_over_when_the_window_ends() -> None:
    clock = FakeClock()
    limit = limiter(clock)
    for _ in range(5):
        limit.failed(ADDRESS, None)
    clock.time += 59.5
    assert limit.retry_after(ADDRESS, None) == 0.5
    clock.time += 0.5
    assert limit.retry_after(ADDRESS, None) is None


def test_what_one_caller_can_choose_among_is_one_address() -> None:
    limit = limiter(FakeClock())
    for port in range(3):
        limit.failed(f"{ADDRESS}:{port}", None)
        limit.failed(f"[2001:db8::{port}]:443", None)
    assert limit.retry_after(ADDRESS, None) == 60.0
    assert limit.retry_after("2001:db8::ffff", None) == 60.0
    assert limit.retry_after("2001:db8:0:1::1", None) is None
