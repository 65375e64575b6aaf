"""A setting that the documentation does not list is a setting nobody finds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from api.config import platforms as hosting
from api.config.secret_files import generate_secrets
from api.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class RecordingEnviron(Mapping[str, str]):
    """An environment that remembers which names it was asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values_by_name = values
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def names_of_settings() -> set[str]:
    """The names that settings ask for, without the platforms' own and the general `NAME_FILE`."""
    asked, platforms = RecordingEnviron(generate_secrets().settings()), RecordingEnviron({})
    Settings.from_env(asked)
    hosting.detect(platforms, ROOT)
    return {name for name in asked.names - platforms.names if not name.endswith("_FILE")}


def test_the_names_are_found_by_asking_for_them() -> None:
    names = names_of_settings()
    assert {"PORT", "DATABASE_URL", "SIGNING_KEY", "WEB_CONCURRENCY", "PROTECAO_DEMO"} <= names
    assert not names & {"RENDER", "DYNO", "FLY_APP_NAME"}
    found_out = {"disk", "platform"}
    assert len(names) == len({field.name for field in dataclasses.fields(Settings)} - found_out)


def documented() -> set[str]:
    """The names in the first cells of the table of settings."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    first_cells = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    return set(re.findall(r"`([A-Z][A-Z_]+)`", first_cells))


def test_the_table_of_settings_has_every_setting_and_nothing_else() -> None:
    assert documented() == names_of_settings()
