"""Assembles v1/License.ahk and v2/License.ahk from the sections in src/. Needs nothing but Python.

    python clients/ahk/assemble.py            writes the files
    python clients/ahk/assemble.py --check    writes nothing; exit status 1 where one of them is out of date

Each version has a second build, License-sync.ahk: synchronous HTTP, without the machine code of License.ahk. The two
differ in one section.

The sections are written in AutoHotkey v2, with an explicit ` . ` between texts, parentheses around conditions and each
continuation line beginning with its comma or operator: so most lines are AutoHotkey 1.1 as well. `RULES` translate the
rest. Where the two languages differ by more than that, a section holds both, between lines that say only `;@v1`, `;@v2`
and `;@end`; those lines are copied as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTIONS = HERE / "src"
VERSIONS = ("v1", "v2")
#: The files that are made for each version, and the sections that only the others have.
BUILDS = {"License.ahk": {"04_http_sync.ahk"}, "License-sync.ahk": {"04_http_polled.ahk"}}

_MARK = re.compile(r"\s*;@(\w+)\s*")
#: A text in double quotes, one in single quotes, a comment, or code up to the next of these.
_PIECE = re.compile(r""""[^"]*"|'[^']*'|(?:(?<=\s)|^);.*|(?:[^"';]|(?<!\s);)+""")


class SectionError(Exception):
    """A section that cannot be assembled. The message says which line of it, and why."""


@dataclass(frozen=True)
class Rule:
    """A translation from AutoHotkey v2 to 1.1, for lines in which `pattern` is found."""

    pattern: str
    replacement: str | Callable[[re.Match[str]], str]

    def translated(self, line: str) -> str:
        return re.sub(self.pattern, self.replacement, line)


#: Applied to whole lines, in this order.
LINE_RULES = (
    # A static method is a plain one: AutoHotkey 1.1 calls either through the class.
    Rule(r"^(    )static (\w+\(.*\{)$", r"\1\2"),
    # RegExMatch gives an object of matches only where its options say so.
    Rule(r'(RegExMatch\(\w+, ")(?:(\w*)\))?(?=.*, &\w+)', lambda found: f"{found[1]}O{found[2] or ''})"),
    Rule(r'NumPut\(("\w+"), (.+), ([\w.]+), ([^,]+)\)$', r"NumPut(\2, \3 + 0, \4, \1)"),
    # `+ 0` makes sure that it is taken as an address and not as a variable.
    Rule(r"((?:NumGet|StrGet)\([\w.]+(?:\[\w+\])?|StrPut\(\w+, [\w.]+\.Ptr)(?=,)", r"\1 + 0"),
    Rule(r"Throws ValueError", "Throws an Exception"),
    # Commands, which are no functions there.
    Rule(r'^( +)(\w+) := Critical\("On"\)', r"\1\2 := A_IsCritical\n\1Critical, On"),
    Rule(r"(\w+) := EnvGet\(\"(\w+)\"\)", r"EnvGet, \1, \2"),
    Rule(r"SetTimer\((\w+), 0\)", r"SetTimer, % \1, Delete"),
    Rule(r"SetTimer\((\w+), (.+)\)", r"SetTimer, % \1, % \2"),
    Rule(r"\b(SetRegView|Sleep)\((-?\d+)\)", r"\1, \2"),
    Rule(r"\b(Critical|SetRegView)\((\w+)\)", r"\1, % \2"),
    Rule(r"\bDirCreate\((.+)\)", r"FileCreateDir, % \1"),
    Rule(r"^( +)loop (?=[\w])", r"\1Loop % "),
    Rule(r"^( +)Loop Parse, ", r"\1Loop, Parse, "),
    Rule(r"^(.*\bcatch) as (\w+)", r"\1 \2"),
)

#: Applied to code only: neither to texts nor to comments.
CODE_RULES = (
    Rule(r"&(?=\w)", ""),  # a variable that a function fills
    Rule(r"\bStrPtr\((\w+)\)", r"&\1"),
    Rule(r"\bBuffer\(", "LicenseBuffer("),
    Rule(r"(?<![\w.])(License\w+\()", r"new \1"),
    Rule(r"\bthrow (?:Value)?Error\(", "throw Exception("),
    Rule(r"\.Length\b", ".Length()"),
    Rule(r"\bMap\(", "Object("),
    Rule(r"\.(?:Has|HasOwnProp)\(", ".HasKey("),
    Rule(r"\.OwnProps\(\)", ""),
    Rule(r"\.%([^%]+)%", r"[\1]"),
)


def assembled(version: str, build: str = "License.ahk") -> str:
    """The text of one of `BUILDS` for one of `VERSIONS`. Raises `SectionError`."""
    sections = [section for section in sorted(SECTIONS.glob("*.ahk")) if section.name not in BUILDS[build]]
    return "\n\n\n".join("\n".join(lines_of(section, version)) for section in sections) + "\n"


def path_of(version: str, build: str = "License.ahk") -> Path:
    return HERE / version / build


def encoded(version: str, build: str = "License.ahk") -> bytes:
    """The bytes of the file. AutoHotkey 1.1 reads UTF-8 only behind a byte order mark."""
    return assembled(version, build).encode("utf-8-sig" if version == "v1" else "utf-8")


def translated(line: str) -> str:
    """One line of AutoHotkey v2 in the language of 1.1."""
    for rule in LINE_RULES:
        line = rule.translated(line)
    return "".join(map(_translated_piece, _PIECE.findall(line)))


def _translated_piece(piece: str) -> str:
    if piece.startswith("'"):
        return '"' + piece[1:-1].replace('"', '""') + '"'
    if piece.startswith((";", '"')):
        return piece
    for rule in CODE_RULES:
        piece = rule.translated(piece)
    return piece


def lines_of(section: Path, version: str) -> Iterator[str]:
    """One section as `version` has it, line by line. Raises `SectionError`."""
    only = ""  # the version that the lines are for; "" for both
    for number, line in enumerate(section.read_text(encoding="utf-8").splitlines(), start=1):
        mark = _MARK.fullmatch(line)
        if mark:
            only = _after(mark[1], only, f"{section.name}, line {number}")
        elif only in ("", version):
            yield translated(line) if version == "v1" and not only else line
    if only:
        raise SectionError(f"{section.name}: ;@{only} has no ;@end")


def _after(mark: str, only: str, where: str) -> str:
    """The version that the lines after a mark are for."""
    if mark in VERSIONS and mark != only:
        return mark
    if mark == "end" and only:
        return ""
    raise SectionError(f"{where}: ;@{mark} does not belong here")


def _is_stale(version: str, build: str) -> bool:
    path = path_of(version, build)
    return not path.exists() or path.read_bytes() != encoded(version, build)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = [(version, build) for version in VERSIONS for build in BUILDS if _is_stale(version, build)]
    for each in stale:
        if arguments:
            print(f"{path_of(*each)} is out of date: run make clients", file=sys.stderr)
        else:
            path_of(*each).write_bytes(encoded(*each))
            print(f"wrote {path_of(*each)}")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
