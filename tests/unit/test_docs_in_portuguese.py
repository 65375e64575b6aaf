"""The documentation in Portuguese says of the product what the original says, and answers the older guide whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_docs import ROOT, text_of
from tests.unit.test_settings_documented import names_of_settings

PORTUGUESE = ROOT / "docs" / "pt-BR"
DEPLOY = ROOT / "docs" / "deploy"
GUIDE = PORTUGUESE / "vindo-do-guia.md"

#: What the older guide has a vendor set, as it stands there.
GUIDES_SETTINGS = {
    "FLASK_ENV": "production",
    "PORT": "5000",
    "DB_PATH": "/data/protecao.db",
    "API_KEY": "SUA_API_KEY_AQUI",
    "SHARED_SECRET": "SEU_SHARED_SECRET_AQUI",
    "REQUIRE_API_KEY": "true",
    "REQUIRE_SIGNATURE": "true",
    "SMTP_ENABLED": "false",
}
#: Files, addresses and names that the two older guides speak of.
GUIDES_NAMES = (
    *("requirements.txt", "Procfile", "runtime.txt", "fly.toml", "SOLUCAO_COM_REDUNDANCIA.ahk", "sync_queue.db"),
    *("utils/auto_failover.py", "g_LicenseAPI_Servers", "Railway", "Render", "Fly", "PythonAnywhere", "Supabase"),
    *("PlanetScale", "license_server_used.txt", "license_server_failover.txt", "license_offline_success.txt"),
    *("Opção 1", "Opção 2", "Opção 3", "Servidor 1", "Servidor 2", "Servidor 3", "Teste 1, 2 e 3", "offline"),
)


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of the page's tables."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_setting_of_the_guide_is_answered_and_is_one_of_ours() -> None:
    answered = {row[0].strip("`"): row[1].strip("`") for row in rows(GUIDE) if len(row) == 3 and row[1].startswith("`")}
    assert answered == {f"{name}={text}": name for name, text in GUIDES_SETTINGS.items()}
    assert set(GUIDES_SETTINGS) <= names_of_settings()


def test_every_setting_that_the_guide_did_not_have_is_one_of_ours() -> None:
    _, new = text_of(GUIDE).split("O que o guia não tinha", 1)
    first_cells = re.findall(r"^\|(.*?)\|", new.split("## ", 1)[0], flags=re.MULTILINE)
    found = {name for cell in first_cells for name in re.findall(r"`([A-Z_]+)`", cell)}
    assert {"DATABASE_URL", "ADMIN_TOKEN", "SIGNING_KEY"} <= found <= names_of_settings()


@pytest.mark.parametrize("name", GUIDES_NAMES)
def test_every_file_and_step_of_the_guides_is_answered(name: str) -> None:
    assert any(name in row[0] for row in rows(GUIDE))


def test_every_page_of_a_host_is_there_in_both_languages() -> None:
    english, translated = ({path.name for path in folder.glob("*.md")} for folder in (DEPLOY, PORTUGUESE / "deploy"))
    assert translated == english


def steps(page: Path) -> int:
    return len(re.findall(r"^\d+\. ", text_of(page), flags=re.MULTILINE))


#: The first page's files and image are in the original alone.
WHOLE = sorted(page for page in DEPLOY.glob("*.md") if page.name != "README.md")


@pytest.mark.parametrize("page", WHOLE, ids=lambda page: page.name)
def test_a_translation_has_as_many_steps_and_rows_and_the_same_settings(page: Path) -> None:
    translated = PORTUGUESE / "deploy" / page.name
    assert steps(translated) == steps(page)
    assert len(rows(translated)) == len(rows(page))
    named = [set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", text_of(one))) for one in (page, translated)]
    assert named[0] == named[1]
    assert len(re.findall(r"^- ", text_of(page), re.M)) == len(re.findall(r"^- ", text_of(translated), re.M))


def test_every_trouble_that_is_quoted_is_one() -> None:
    _, table = text_of(PORTUGUESE / "operacao.md").split("| começa com |", 1)
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    listed = re.findall(r"^\| `([^`]+)` \|", text_of(ROOT / "docs" / "operations.md"), flags=re.MULTILINE)
    assert len(quoted) >= 8
    assert [each for each in quoted if not any(trouble.startswith(each) for trouble in listed)] == []
