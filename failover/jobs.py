"""Jobs that run on a clock, in a process's background, each recording its own last success for `/readyz`."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger("protecao.failover.jobs")
_SCHEDULERS_LOG = "protecao.failover.jobs.scheduler"
#: How often the wall clock is looked at, and by how much it moves in between when it has been set.
_CLOCK_LOOK_S, _CLOCK_WAS_SET_S = 1.0, 0.5


def _until_the_end(_record: logging.LogRecord) -> bool:
    """A process that ends has ended its pools before its schedulers: what these then log is of no use."""
    return threading.main_thread().is_alive()


class Jobs:
    """APScheduler with what a starved host needs: no tick is dropped for being late, none runs beside itself."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._stopped = threading.Event()
        # It warns of each tick whose work is still under way: in an outage four times a second. A job that
        # hangs shows by the age of its last success, one that fails is logged by `run`.
        quiet = logging.getLogger(_SCHEDULERS_LOG)
        quiet.setLevel(logging.ERROR)
        quiet.addFilter(_until_the_end)
        self._scheduler = BackgroundScheduler(
            logger=quiet,
            timezone="UTC",
            executors={"default": {"type": "threadpool", "max_workers": 4}},
            # The default grace of 1 s silently skips ticks on a host that is short of CPU.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._succeeded: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()

    def every(self, seconds: float, name: str, work: Callable[[], None]) -> None:
        """Runs `work` at the start and then every `seconds`. An exception is logged once and the job goes on."""
        now = datetime.now(UTC)
        self._scheduler.add_job(
            self.run, "interval", args=(name, work), seconds=seconds, id=name, name=name, next_run_time=now
        )

    def soon(self, name: str) -> None:
        """Runs a job now rather than at its time, if there is one of that name."""
        with contextlib.suppress(JobLookupError):
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))

    def start(self) -> None:
        """Starts the scheduler's thread, and one that keeps it from going by a clock that was set."""
        self._scheduler.start()
        threading.Thread(target=self._watch_the_clock, name="jobs-clock", daemon=True).start()

    def stop(self) -> None:
        """Starts no more ticks; those under way end by themselves."""
        self._stopped.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def last_success_s(self) -> dict[str, float | None]:
        """For each job the seconds since it last succeeded, None where it never did."""
        now = self._monotonic()
        with self._lock:
            return {
                job.id: round(now - self._succeeded[job.id], 3) if job.id in self._succeeded else None
                for job in self._scheduler.get_jobs()
            }

    def _watch_the_clock(self) -> None:
        """APScheduler goes by the wall clock: set back by an hour, it would let every job rest for an hour."""
        ahead = self._wall() - self._monotonic()
        while not self._stopped.wait(_CLOCK_LOOK_S):
            before, ahead = ahead, self._wall() - self._monotonic()
            if abs(ahead - before) > _CLOCK_WAS_SET_S:
                _log.warning("the wall clock was set", extra={"by_s": round(ahead - before, 1)})
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Runs `work` now, on this thread, as the job `name`. An exception is logged, once for each reason."""
        try:
            work()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if self._failed.get(name) != reason:
                _log.warning("job failed", extra={"job": name, "reason": reason})
            self._failed[name] = reason
            return
        if self._failed.pop(name, None) is not None:
            _log.info("job succeeds again", extra={"job": name})
        with self._lock:
            self._succeeded[name] = self._monotonic()
