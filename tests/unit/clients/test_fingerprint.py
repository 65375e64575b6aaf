"""The machine's name: the system's own id, hashed with the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from license_client import ConfigurationError, fingerprint, machine_fingerprint


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, *ids: str) -> None:
    places = [folder / str(number) for number in range(len(ids))]
    for place, text in zip(places, ids, strict=True):
        place.write_text(text)
    monkeypatch.setattr(fingerprint, "_LINUX_PLACES", [folder / "missing", *places])
    monkeypatch.setattr("sys.platform", "linux")


def test_the_same_machine_has_the_same_name_and_each_product_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, tmp_path, "3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    name = machine_fingerprint("notepad-pro")
    assert name == machine_fingerprint("notepad-pro")
    assert name != machine_fingerprint("paint-pro")
    assert len(name) == 64
    assert "3d1219c7" not in name


def test_another_machine_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tmp_path, "one")
    first = machine_fingerprint()
    machine(monkeypatch, tmp_path, "two")
    assert machine_fingerprint() != first


def test_an_empty_id_is_none_and_the_next_place_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tmp_path, "two")
    second = machine_fingerprint()
    machine(monkeypatch, tmp_path, "\n", "two")
    assert machine_fingerprint() == second


def test_a_system_without_an_id_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tmp_path, "")
    with pytest.raises(ConfigurationError, match="pass one"):
        machine_fingerprint()
