"""The two AutoHotkey clients are one: assembled from the same sections, with the same classes, methods and texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clients.ahk.assemble import VERSIONS, SectionError, assembled, encoded, lines_of, main, path_of, translated

#: The class that AutoHotkey v2 has built in.
ONLY_V1 = {"LicenseBuffer"}

#: Texts that one version has and the other has not, by method.
DIFFERENT = {
    # AutoHotkey 1.1 takes functions by name and constants only as defaults, and does not say what is a number.
    "LicenseClient._Callable": {"License: there is no function "},
    "LicenseClient._ValidateCall": {"License: entitlements must be an array of names", ""},
    "LicenseClient.Activate": {""},
    "LicenseCall.AddNumber": {r"^[1-9][0-9]{0,9}\z"},
    # An OSError says the rest itself.
    "LicenseHttp.__New": {"License: WinHTTP error ", "License: WinHTTP"},
    "LicenseCrypto._Check": {"License: CNG error ", "{:#x}", "License: CNG"},
    "LicenseLibraries._LoadAll": {" cannot be loaded, error "},
    # Functions of v2 that are commands in 1.1, whose words stand without quotes.
    "LicenseClient.__New": {"LOCALAPPDATA"},
    "LicenseClient._Slice": {"On"},
    "LicenseClient._Result": {"On"},
    "LicenseCallback.Leave": {"On"},
    "LicenseRegistry.Write": {"REG_SZ"},
    "LicenseMachine._Parts": {"SystemDrive"},
    "LicenseTime._Unix": {"19700101000000", "Seconds", ""},
    "LicenseTime.Iso": {"19700101000000", "Seconds", "yyyy-MM-ddTHH:mm:ssZ"},
    "LicenseRefused.Because": {"LicenseRefused"},
    "LicenseRefused.Expect": {"LicenseRefused"},
}

_TEXTS = {"v1": re.compile(r'"((?:[^"]|"")*)"'), "v2": re.compile(r""""([^"]*)"|'([^']*)'""")}
_COMMENT = re.compile(r"(?:(?<=\s)|^);.*")


@dataclass
class Method:
    """One method; under the bare name of a class, what the class has outside of its methods, such as constants."""

    parameters: list[str] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)


def methods_of(version: str, text: str) -> dict[str, Method]:
    """The methods of a License.ahk by their names, `Class.Method`."""
    methods: dict[str, Method] = {}
    name = current = ""
    for line in text.splitlines():
        code = without_comment(version, line)
        if found := re.match(r"class (\w+)", code):
            name = current = found[1]
            methods[current] = Method()
        elif found := re.match(r" {4}(?:static )?(\w+)\((.*)\) \{$", code):
            current = f"{name}.{found[1]}"
            methods[current] = Method([parameter.partition(" :=")[0] for parameter in found[2].split(", ")])
        elif current:
            methods[current].texts.update(texts_in(version, code))
    return methods


def without_comment(version: str, line: str) -> str:
    """The code of a line. Texts may hold a semicolon, so the comment is looked for with stand-ins in their place."""
    shown = _TEXTS[version].sub(lambda found: "_" * len(found[0]), line)
    comment = _COMMENT.search(shown)
    return line[: comment.start()].rstrip() if comment else line


def texts_in(version: str, code: str) -> Iterator[str]:
    """The texts in a line of code, without quotes and without the option `O` that only AutoHotkey 1.1 needs."""
    for found in _TEXTS[version].finditer(code):
        text = found[1].replace('""', '"') if version == "v1" else found[1] or found[2] or ""
        yield re.sub(r"^O([a-zA-Z]*)\)", lambda options: f"{options[1]})" if options[1] else "", text)


def differing_texts(v1: str, v2: str) -> dict[str, set[str]]:
    """The texts that only one of two files has, by method, for the methods that both have."""
    one, two = methods_of("v1", v1), methods_of("v2", v2)
    both = one.keys() & two.keys()
    found = {name: (one[name].texts - two[name].texts) + (two[name].texts - one[name].texts) for name in both}
    return {name: set(texts) for name, texts in found.items() if texts}


# -- the two files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_committed_file_is_what_the_sections_make(version: str) -> None:
    assert path_of(version).read_bytes() == encoded(version), "run make clients"


def test_both_versions_have_the_same_classes_and_methods_with_the_same_parameters() -> None:
    v1, v2 = (methods_of(version, assembled(version)) for version in VERSIONS)
    shared = {name: method.parameters for name, method in v1.items() if name.partition(".")[0] not in ONLY_V1}
    assert shared == {name: method.parameters for name, method in v2.items()}
    assert len(shared) > 150


def test_both_versions_have_the_same_texts_and_codes() -> None:
    assert differing_texts(assembled("v1"), assembled("v2")) == DIFFERENT


def test_a_text_that_only_one_version_has_is_found() -> None:
    v2 = assembled("v2").replace('"This license is suspended."', '"This license sleeps."')
    found = differing_texts(assembled("v1"), v2)
    assert found.keys() - DIFFERENT.keys() == {"LicenseTexts._English"}
    assert found["LicenseTexts._English"] == {"This license is suspended.", "This license sleeps."}


def test_every_text_for_users_is_in_both_languages() -> None:
    methods = methods_of("v2", assembled("v2"))
    english, portuguese = (
        [text for text in methods[f"LicenseTexts.{name}"].texts if re.fullmatch(r"[A-Z_]+( valid| mistyped)?", text)]
        for name in ("_English", "_Portuguese")
    )
    assert english == portuguese
    assert len(english) > 25


# -- how they are made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v2", "v1"),
    [
        ("    static Of(texts, code) {", "    Of(texts, code) {"),
        ("    static Fresh := 60", "    static Fresh := 60"),
        ("try DirCreate(this.folder)", "try FileCreateDir, % this.folder"),
        ("    } catch as refused {", "    } catch refused {"),
        ("call := LicenseCall(this, Buffer(8, 0))", "call := new LicenseCall(this, new LicenseBuffer(8, 0))"),
        ("LicenseText.Same(one, two)", "LicenseText.Same(one, two)"),
        ('throw ValueError("License: no")', 'throw Exception("License: no")'),
        ("""return '{"a":"' . b . "}" """, '''return "{""a"":""" . b . "}" '''),
        ("while (list.Length > 2)", "while (list.Length() > 2)"),
        ("reasons := Map(1, 2), reasons.Has(1)", "reasons := Object(1, 2), reasons.HasKey(1)"),
        ('RegExMatch(url, "i)^(a)", &parts)', 'RegExMatch(url, "Oi)^(a)", parts)'),
        ('RegExMatch(url, "^(a)", &parts)', 'RegExMatch(url, "O)^(a)", parts)'),
        ('RegExMatch(url, "^(a)")', 'RegExMatch(url, "^(a)")'),
        ("bits & this.awaited && x", "bits & this.awaited && x"),
        ('NumPut("UInt", a + b, this.state, 4)', 'NumPut(a + b, this.state + 0, 4, "UInt")'),
        ('NumGet(list[index], 0, "UInt")', 'NumGet(list[index] + 0, 0, "UInt")'),
        ('StrPut(text, bytes.Ptr, "UTF-8")', 'StrPut(text, bytes.Ptr + 0, "UTF-8")'),
        ("options.HasOwnProp(name) && options.%name%", "options.HasKey(name) && options[name]"),
        ("for name, value in options.OwnProps()", "for name, value in options"),
        ('folder := EnvGet("TEMP")', "EnvGet, folder, TEMP"),
        ("SetTimer(timer, 0)", "SetTimer, % timer, Delete"),
        ("SetTimer(timer, a ? b : c)", "SetTimer, % timer, % a ? b : c"),
        ('    before := Critical("On")', "    before := A_IsCritical\n    Critical, On"),
        ("Critical(before)", "Critical, % before"),
        ("Sleep(-1)", "Sleep, -1"),
        ("    loop size", "    Loop % size"),
        ("    Loop Parse, text", "    Loop, Parse, text"),
        ("; Throws ValueError, it's no Buffer(8)", "; Throws an Exception, it's no Buffer(8)"),
        ("""x := "it's .Length; Map(" . y.Length""", """x := "it's .Length; Map(" . y.Length()"""),
    ],
)
def test_a_line_is_translated(v2: str, v1: str) -> None:
    assert translated(v2) == v1


def test_lines_between_marks_are_for_one_version_and_stay_as_they_are(tmp_path: Path) -> None:
    section = tmp_path / "section.ahk"
    section.write_text("a.Length\n    ;@v1\nb.Length\n    ;@v2\nc.Length\n    ;@end\nd\n", encoding="utf-8")
    assert list(lines_of(section, "v1")) == ["a.Length()", "b.Length", "d"]
    assert list(lines_of(section, "v2")) == ["a.Length", "c.Length", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n;@v1\nb\n", "section.ahk: ;@v1 has no ;@end"),
        ("a\n;@end\n", "section.ahk, line 2: ;@end does not belong here"),
        (";@v2\n;@v2\n;@end\n", "section.ahk, line 2: ;@v2 does not belong here"),
        (";@v3\n;@end\n", "section.ahk, line 1: ;@v3 does not belong here"),
    ],
)
def test_a_mark_in_the_wrong_place_is_refused(tmp_path: Path, text: str, message: str) -> None:
    section = tmp_path / "section.ahk"
    section.write_text(text, encoding="utf-8")
    with pytest.raises(SectionError, match=re.escape(message)):
        list(lines_of(section, "v1"))


def test_a_check_of_files_that_are_up_to_date_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_an_option_that_is_not_known_prints_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--write"]) == 2
    assert "--check" in capsys.readouterr().err
