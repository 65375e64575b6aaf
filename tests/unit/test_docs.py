"""The documentation against the code: what it links to, cites and names is there.

Settings and troubles have tests of their own beside this one; `tests/e2e/test_documentation.py` runs every snippet.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from api.cli.root import create_cli
from api.config import platforms
from api.config.secret_files import generate_secrets
from api.config.settings import Settings
from api.licensing import Code
from api.problems import PROBLEMS
from api.version import VERSION
from failover.model import State
from license_client.codes import Local
from tests.unit.test_settings_documented import RecordingEnviron

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("docs", "clients", "examples", "tests")
_MADE = {".venv", "build", "node_modules", ".pytest_cache"}

_FENCED = re.compile(r"```.*?```", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_CODE_SPAN = re.compile(r"`([^`]+)`")
#: "the contract, section 4", "(contract, sections 1 and 2)", "the contract's (section 5)", "section 8 of the contract".
_CITED = re.compile(
    r"contract(?:'s)?[,\s]*\(?(?:in )?section(?:s)? (\d+)(?: and (\d+))?|[Ss]ection (\d+) of the contract"
    r"|contract's section (\d+)"
)
_UPPER = re.compile(r"[A-Z][A-Z]+(?:_[A-Z]+)*")

#: What the contract asks for and marks as not built yet, and names that pages give as examples of wrong ones.
_NOT_BUILT = {"SYNC_FROM"}
_WRONG_ON_PURPOSE = {"DATABSE_URL", "REQUIRE_SIGNATURES", "NODE_RNAK", "API_KEYS", "SUA_API_KEY_AQUI"}
#: What is in capitals and not ours: of HTTP, of SQL, of logs, of Linux; or that stands for other names.
_OTHERS = {
    *("GET", "POST", "COMMIT", "CONCURRENTLY", "LISTEN", "SET", "SQL_ASCII", "DEBUG", "INFO", "SCHED_BATCH"),
    *("NAME_FILE", "TEST_DATABASE_URL", "TEST_PROFILE"),
    *("RAILWAY_PUBLIC_DOMAIN", "RAILWAY_REPLICA_ID", "RAILWAY_REPLICA_REGION", "RENDER_EXTERNAL_URL"),
    *("RENDER_SERVICE_ID", "FLY_REGION", "PYTHON_VERSION", "POSTGRES_PASSWORD", "DATABASE_PUBLIC_URL"),
}


def pages() -> list[Path]:
    """Every page of the repository in Markdown."""
    found = [*ROOT.glob("*.md"), *(path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path for path in found if not _MADE & set(path.relative_to(ROOT).parts))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", text_of(page))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    made = set()
    for heading in _HEADING.findall(prose_of(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower().strip()
        made.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return made


every_page = pytest.mark.parametrize("page", pages(), ids=name_of)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link} is not there"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link} has no such heading"


def sources() -> Iterator[Path]:
    """Every file in which the contract may be cited."""
    for folder in ("api", "failover", "clients", "examples", "migrations", *_FOLDERS):
        for suffix in ("py", "md", "ahk"):
            yield from (path for path in (ROOT / folder).rglob(f"*.{suffix}") if not _MADE & set(path.parts))
    yield from ROOT.glob("*.md")


def test_every_citation_of_the_contract_has_its_section() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", text_of(ROOT / "docs" / "contract.md"), flags=re.MULTILINE))
    cited = {
        (name_of(path), number)
        for path in sources()
        for found in _CITED.findall(text_of(path))
        for number in filter(None, found)
    }
    assert len(cited) > 10, "they are found by their words: the words have changed"
    assert {(name, number) for name, number in cited if number not in sections} == set()


def names_of_settings() -> set[str]:
    """What settings ask the environment for, the platforms' own names included."""
    asked, hosts = RecordingEnviron(generate_secrets().settings()), RecordingEnviron({})
    Settings.from_env(asked)
    platforms.detect(hosts, ROOT)
    return asked.names | hosts.names


@functools.cache
def known_in_capitals() -> frozenset[str]:
    """Every name in capitals that the code gives to something a page may speak of."""
    codes = {code.value for code in Code} | {local.value for local in Local} | set(PROBLEMS)
    return frozenset(names_of_settings() | codes | {state.value for state in State} | _OTHERS)


@every_page
def test_names_in_capitals_are_settings_or_codes(page: Path) -> None:
    """Such as `LEDGER_BUDGET`: a word of capitals in code is of ours, or it is listed above."""
    known = known_in_capitals() | _WRONG_ON_PURPOSE
    if page.parent == ROOT / "docs" and page.name == "contract.md":
        known |= _NOT_BUILT
    if page.is_relative_to(ROOT / "clients") or page.name.startswith("cliente-") or page.name == "admin.md":
        known |= names_in_clients()
    spans = [span for span in _CODE_SPAN.findall(prose_of(page)) if _UPPER.fullmatch(span)]
    assert set(spans) - known == set()


@functools.cache
def names_in_clients() -> frozenset[str]:
    """The names in capitals of the clients' sources, which have some of their own."""
    found = [path for suffix in ("py", "ahk") for path in (ROOT / "clients").rglob(f"*.{suffix}")]
    return frozenset(name for path in found for name in _UPPER.findall(text_of(path)))


@pytest.mark.parametrize("name", ["docs/contract.md", "docs/api.md"])
def test_every_verdict_code_is_documented(name: str) -> None:
    assert {code.value for code in Code} - set(_UPPER.findall(text_of(ROOT / name))) == set()


def test_every_problem_is_documented() -> None:
    assert set(PROBLEMS) - set(_UPPER.findall(text_of(ROOT / "docs" / "api.md"))) == set()


def test_every_local_result_of_a_client_is_documented() -> None:
    written = set(_UPPER.findall(text_of(ROOT / "docs" / "clients.md")))
    assert {local.value for local in Local} - written == set()


def flask_commands(page: Path) -> set[str]:
    """What stands after `flask` in code: up to the first word that is no command's name."""
    in_code = [*_CODE_SPAN.findall(prose_of(page)), *re.findall(r"^flask .*$", text_of(page), flags=re.MULTILINE)]
    found = (
        match for code in in_code for match in re.findall(r"(?:^|\b)flask ([a-z][a-z|-]*(?: [a-z][a-z-]*)*)", code)
    )
    return set(found)


@every_page
def test_every_command_of_flask_is_there(page: Path) -> None:
    root = commands()
    for command in flask_commands(page):
        for first in command.split(" ")[0].split("|"):
            words = [first, *command.split(" ")[1:]]
            assert _is_command(root, words), f"{name_of(page)}: flask {command}"


@functools.cache
def commands() -> click.Group:
    return create_cli().cli


def _is_command(group: click.Group, words: list[str]) -> bool:
    """Whether `words` lead to a command; what follows a command are its arguments."""
    context = click.Context(group)
    for word in words:
        found = group.get_command(context, word)
        if found is None:
            return False
        if not isinstance(found, click.Group):
            return True
        group = found
    return True


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@every_page
def test_every_target_of_make_is_there(page: Path) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text_of(page), flags=re.MULTILINE))
    assert named - make_targets() == set()


def test_every_target_of_make_is_named_somewhere() -> None:
    named = {name for page in pages() for name in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text_of(page), flags=re.M)}
    assert make_targets() - named == set()


_PATH = re.compile(r"(?:api|failover|clients|migrations|tests|examples|docs)/[\w./-]*|[A-Z]+\.md|pyproject\.toml")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/decisions"])
def test_every_path_that_is_named_is_there(page: str) -> None:
    named = ROOT / page
    for one in sorted(named.glob("*.md")) if named.is_dir() else [named]:
        paths = [span for span in _CODE_SPAN.findall(prose_of(one)) if _PATH.fullmatch(span)]
        assert paths or one.name == "README.md" or named.is_dir(), f"{one.name} names no files any more"
        missing = [path for path in paths if not (ROOT / path).exists()]
        assert not missing, f"{name_of(one)} names what is not there"


def test_the_readme_is_an_entrance_and_no_manual() -> None:
    text, translated = text_of(ROOT / "README.md"), text_of(ROOT / "README.pt-BR.md")
    assert len(text.split()) <= 950
    assert len(translated.split()) <= 1030, "Portuguese takes a tenth more words"
    assert "has not chosen a licence" in text
    assert "ainda não escolheu uma licença" in translated
    assert not list(ROOT.glob("LICEN[CS]E*")), "then the README has to say which"


def test_the_changelog_has_this_version() -> None:
    headings = re.findall(r"^## \[(.+)\]", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", VERSION]


def test_every_decision_is_in_the_list_once() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", text_of(folder / "README.md"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("0*.md"))
    for path in folder.glob("0*.md"):
        text = text_of(path)
        assert text.startswith(f"# {path.name[:4]}: ")
        assert "**Decision.**" in text
        assert "**What would change it.**" in text
