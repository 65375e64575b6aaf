"""What all tests share: databases on Postgres and SQLite, a seed that can be given again, calm settings.

One Postgres server serves a whole run. Under pytest-xdist the controller starts it before the first worker and ends it
after the last; without, the first test that needs it does. Tests get clones of one migrated template.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.databases import create_database, drop_database, ensure_template
from tests.support.postgres import PostgresServer
from tests.support.programs import PostgresUnavailable

_SERVER = pytest.StashKey[PostgresServer]()
_FOUND = pytest.StashKey[dict[str, str]]()
_SEED = pytest.StashKey[int]()
_URL, _RUN, _TEMPLATE, _WHY_NOT = "postgres_url", "postgres_run", "postgres_template", "postgres_unavailable"
_SKIPPED = "POSTGRES IS MISSING"
#: What else tests may be skipped for, which is said loudly at the end.
_MISSING = (
    "WINE IS MISSING",
    "PGBOUNCER IS MISSING",
    "NO SMALL DISK",
    "NO C COMPILER",
    "NO PACKAGE INDEX",
    "NPM IS MISSING",
)

# Two noisy cores: how long one example takes says nothing.
hypothesis.settings.register_profile(
    "protecao", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# For `make test-fast`: a tenth of the examples, where a test does not say how many.
hypothesis.settings.register_profile("fast", hypothesis.settings.get_profile("protecao"), max_examples=10)
hypothesis.settings.load_profile(os.environ.get("TEST_PROFILE", "protecao"))


# -- one server for the run -----------------------------------------------------------------------------------------


def _find_server(config: pytest.Config) -> dict[str, str]:
    """Starts the run's server where none is given. What is found is plain text, so that workers can be told."""
    run = f"protecao_{uuid.uuid4().hex[:8]}"
    names = {_RUN: run, _TEMPLATE: f"{run}_template"}
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return {_URL: given, **names}
    try:
        server = PostgresServer(fsync=False)  # the machine does not crash in between
    except PostgresUnavailable as error:
        if os.environ.get("CI"):
            raise pytest.UsageError(f"{_SKIPPED}: {error}") from error
        return {_WHY_NOT: f"{_SKIPPED}: {error}"}
    config.stash[_SERVER] = server
    server.start()
    return {_URL: server.url(), **names}


def _server_of_this_run(config: pytest.Config) -> dict[str, str]:
    if _FOUND not in config.stash:
        config.stash[_FOUND] = _find_server(config)
    return config.stash[_FOUND]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The controller tells each worker of pytest-xdist, as it is made, where the server is."""
    node.workerinput.update(_server_of_this_run(node.config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the server, or leaves a given one without our template. A worker has neither to answer for."""
    if _SERVER in config.stash:
        config.stash[_SERVER].close()
    elif _TEMPLATE in config.stash.get(_FOUND, {}):
        drop_database(config.stash[_FOUND][_URL], config.stash[_FOUND][_TEMPLATE])


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> dict[str, str]:
    """Where the run's server is, in `postgres_url`; the test is skipped where there is none."""
    told: dict[str, str] | None = getattr(pytestconfig, "workerinput", None)
    found = told if told is not None else _server_of_this_run(pytestconfig)
    if _WHY_NOT in found:
        pytest.skip(found[_WHY_NOT])
    return found


# -- databases ------------------------------------------------------------------------------------------------------


def _migrate(url: str) -> None:
    from api.ledger.database import Database
    from api.ledger.migrate import upgrade

    database = Database(url)
    try:
        upgrade(database)
    finally:
        database.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: dict[str, str]) -> str:
    """The name of the migrated database that every test's database is a clone of."""
    return ensure_template(postgres_server[_URL], postgres_server[_TEMPLATE], _migrate)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrated file that every test's file is a copy of."""
    path = tmp_path_factory.mktemp("template") / "protecao.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def new_postgres_database(postgres_server: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """A function from a template's name to a new database's URL. What it made is dropped after the test."""
    names: list[str] = []

    def make(template: str) -> str:
        names.append(f"{postgres_server[_RUN]}_{uuid.uuid4().hex[:12]}")
        return create_database(postgres_server[_URL], names[-1], template)

    yield make
    for name in names:
        drop_database(postgres_server[_URL], name)


@pytest.fixture
def postgres_url(new_postgres_database: Callable[[str], str], postgres_template: str) -> str:
    """A migrated Postgres database of this test's own."""
    return new_postgres_database(postgres_template)


@pytest.fixture
def empty_postgres_url(new_postgres_database: Callable[[str], str]) -> str:
    return new_postgres_database("template1")


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite file of this test's own."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'protecao.db')}"


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """A migrated ledger of this test's own; the test runs once on SQLite and once on Postgres."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["sqlite", "postgres"])
def empty_ledger_url(request: pytest.FixtureRequest) -> str:
    """A database without tables; the test runs once on SQLite and once on Postgres."""
    return str(request.getfixturevalue(f"empty_{request.param}_url"))


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clients and `license-admin` keep for their user is this test's."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """For `random.Random(seed)`: from `TEST_SEED`, else by chance; a failing test says which it was."""
    chosen = int(os.environ.get("TEST_SEED") or secrets.randbits(32))
    request.node.stash[_SEED] = chosen
    return chosen


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """pytest's own, which hears this project whatever another test of this process has set up."""
    logger = logging.getLogger("protecao")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = True
    yield caplog
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and _SEED in item.stash:
        report.sections.append(("seed", f"run it again with TEST_SEED={item.stash[_SEED]}"))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, or in the end one process waits for the other's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for missing in (_SKIPPED, *_MISSING):
        skipped = [report for report in terminalreporter.stats.get("skipped", []) if missing in str(report.longrepr)]
        if skipped:
            terminalreporter.section(missing, sep="!", red=True)
            terminalreporter.write_line(f"{len(skipped)} tests were skipped. {skipped[0].longrepr[2]}")
