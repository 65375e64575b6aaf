"""Jobs on a clock: each says when it last succeeded, and one that hangs is not spoken of at every tick."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from failover.jobs import Jobs
from tests.support.processes import until


def test_a_job_that_hangs_costs_no_line_for_each_tick_and_goes_on_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    jobs, release, ticks, runs = Jobs(), threading.Event(), list[int](), list[int]()

    def hang() -> None:
        runs.append(1)
        release.wait(60)

    jobs.every(0.02, "hangs", hang)
    jobs.every(0.02, "ticks", lambda: ticks.append(1))
    jobs.start()
    try:
        until(lambda: len(ticks) > 20, "many ticks of the other")
        assert (len(runs), jobs.last_success_s()["hangs"]) == (1, None)
        release.set()
        until(lambda: len(runs) > 3, "it goes on")
        assert jobs.last_success_s()["hangs"] is not None
    finally:
        release.set()
        jobs.stop()
    assert [record.getMessage() for record in caplog.records] == []


def test_a_job_that_fails_is_said_once_and_once_more_when_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "protecao.failover.jobs")
    jobs, runs, fails = Jobs(), list[int](), [True]

    def work() -> None:
        runs.append(1)
        if fails[0]:
            raise ConnectionError("away")

    jobs.every(0.02, "works", work)
    jobs.start()
    try:
        until(lambda: len(runs) > 10, "many failures")
        fails[0] = False
        until(lambda: jobs.last_success_s()["works"] is not None, "a success")
    finally:
        jobs.stop()
    said = [record.getMessage() for record in caplog.records if record.name == "protecao.failover.jobs"]
    assert said == ["job failed", "job succeeds again"]


def test_a_wall_clock_that_is_set_back_lets_no_job_rest() -> None:
    ahead, ticks = [0.0], list[int]()
    jobs = Jobs(wall=lambda: time.time() + ahead[0])
    jobs.every(0.02, "ticks", lambda: ticks.append(1))
    jobs.start()
    try:
        until(lambda: len(ticks) > 3, "it ticks")
        # What setting the clock back by an hour leaves behind: the next tick is an hour off.
        for job in jobs._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))
        ahead[0], seen = -3600.0, len(ticks)
        until(lambda: len(ticks) > seen + 3, "it goes on")
    finally:
        jobs.stop()
