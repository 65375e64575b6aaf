"""What a command works at: the ledger of the environment's settings, opened and closed, and every error made plain."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import cache

import click
import msgspec

from api import logs
from api.admin.store import Resources
from api.config.settings import Settings, SettingsError
from api.ids import new_id
from api.ledger import migrate
from api.ledger.database import Database
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerError, LedgerUnsuitable
from api.ledger.log import Journal
from api.ledger.records import LicenseQuery
from api.ledger.store import open_ledger
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import open_shared_state
from api.problems import Problem
from api.snapshot import SNAPSHOT_NAME, Snapshot, require_leave
from api.stats import cluster


class FaultySettings(click.ClickException):
    """The settings cannot be used: every fault is named, and the exit status is the server's."""

    exit_code = 2


class AdminContext(msgspec.Struct, frozen=True):
    """An open ledger with its schema at hand."""

    settings: Settings
    database: Database
    journal: Journal
    resources: Resources


def read_settings() -> Settings:
    """The environment's settings. Raises `FaultySettings`."""
    logs.configure("WARNING", "text")
    try:
        return Settings.from_env(os.environ)
    except SettingsError as error:
        raise FaultySettings(f"these settings cannot be used:\n{error}") from error


@contextlib.contextmanager
def open_context(*, adopting: bool = False) -> Iterator[AdminContext]:
    """The ledger with its schema brought up to date, as a running node would. Errors end the command.

    `adopting`: even in place of an embedded ledger whose file was moved, which no other command founds anew.
    """
    settings = read_settings()
    with plain_errors(), context_of(settings, adopting=adopting) as context:
        yield context


@contextlib.contextmanager
def context_of(settings: Settings, *, adopting: bool = False) -> Iterator[AdminContext]:
    """The same for settings that are at hand. Raises `LedgerError`, `OSError` and what the block raises."""
    clock = Clock()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(settings.database_url, new_id(), clock)
    # A command may run where no supervisor does: the lease itself says who leads.
    node = Node(
        settings.node_id, settings.node_rank, published=cache(lambda: cluster.observed_from_outside(ledger.database))
    )
    try:
        if ledger.database.is_missing and not adopting:
            with copy_in(settings) as copy:
                require_leave(copy, ledger.database)
        migrate.upgrade(ledger.database)
        ledger.look_up([LicenseQuery(key_hash="")])  # samples the ledger's clock
        changes = open_shared_state(settings.data_dir).changes
        journal = Journal(ledger.database, node, clock)
        try:
            yield AdminContext(settings, ledger.database, journal, Resources(ledger.database, node, clock, changes))
        finally:
            changes.everything_changed()  # to the workers of a node that runs here
    finally:
        ledger.database.close()


@contextlib.contextmanager
def copy_in(settings: Settings) -> Iterator[Snapshot | None]:
    """The copy of a ledger that a node keeps in this folder; None where there is none that can be read."""
    path = settings.data_dir / SNAPSHOT_NAME
    try:
        copy = Snapshot(path, reading=True)
    except sqlite3.Error:
        yield None
        return
    try:
        yield copy
    finally:
        copy.close()


@contextlib.contextmanager
def open_ledger_only() -> Iterator[Database]:
    """The ledger as it is, with whatever schema it has. Errors end the command."""
    settings = read_settings()
    with plain_errors():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(settings.database_url)
        try:
            yield database
        finally:
            database.close()


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Whatever may be expected to go wrong becomes one line on stderr and exit status 1."""
    try:
        yield
    except Problem as problem:
        raise click.ClickException(problem.detail or problem.code) from problem
    except LedgerUnsuitable as error:
        raise click.ClickException(f"the ledger cannot be used: {error}") from error
    except LedgerBusy as error:
        raise click.ClickException("the ledger is busy; nothing was changed, try again") from error
    except LedgerContradicts as error:
        raise click.ClickException(str(error)) from error
    except LedgerError as error:
        raise click.ClickException(f"the ledger cannot be reached ({error})") from error
    except BrokenPipeError:
        raise  # who reads the output has seen enough; click ends quietly
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror or error}") from error
