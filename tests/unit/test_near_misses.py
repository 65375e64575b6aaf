"""Names that are nearly a setting's are faults, and nothing that a host or a tool sets is one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.config.near_misses import distance, near_misses
from api.config.secret_files import generate_secrets
from api.config.settings import Settings, SettingsError
from tests.support.host_variables import HOST_VARIABLES
from tests.unit.test_settings_documented import names_of_settings

SECRETS = generate_secrets().settings()
SETTINGS = names_of_settings() | {f"{name}_FILE" for name in (*SECRETS, "DATABASE_URL")}

_TYPED = {
    "DATABSE_URL": "DATABASE_URL",
    "DATABASE_ULR": "DATABASE_URL",
    "DATABASE_URI": "DATABASE_URL",
    "DATABASEURL": "DATABASE_URL",
    "DATABASE-URL": "DATABASE_URL",
    "database_url": "DATABASE_URL",
    "DATABASE_URL_FIEL": "DATABASE_URL_FILE",
    "REQUIRE_SIGNATURES": "REQUIRE_SIGNATURE",
    "REQUIRED_SIGNATURE": "REQUIRE_SIGNATURE",
    "REQUIRE_APIKEY": "REQUIRE_API_KEY",
    "NODE_RNAK": "NODE_RANK",
    "NODERANK": "NODE_RANK",
    "NODE_IDS": "NODE_ID",
    "PEER_URL": "PEER_URLS",
    "PEERS_URLS": "PEER_URLS",
    "API_KEYS": "API_KEY",
    "APIKEY": "API_KEY",
    "SHARED_SECERT": "SHARED_SECRET",
    "SHARE_SECRET": "SHARED_SECRET",
    "SIGNING_KEYS": "SIGNING_KEY",
    "SINGING_KEY": "SIGNING_KEY",
    "ADMIN_TOKE": "ADMIN_TOKEN",
    "WEB_CONCURENCY": "WEB_CONCURRENCY",
    "HEARTBEAT_TIMOUT": "HEARTBEAT_TIMEOUT",
    "TRUSTED_PROXY": "TRUSTED_PROXIES",
    "LOGLEVEL": "LOG_LEVEL",
    "PROT": "PORT",
    "HSOT": "HOST",
    "IGNORE_SETTING": "IGNORE_SETTINGS",
    "DATA_DRI": "DATA_DIR",
}


def faults(**environ: str) -> list[str]:
    try:
        Settings.from_env(SECRETS | environ)
    except SettingsError as error:
        return list(error.faults)
    return []


@pytest.mark.parametrize(("typed", "meant"), _TYPED.items())
def test_a_name_that_is_nearly_a_settings_is_a_fault_that_says_what_was_meant(typed: str, meant: str) -> None:
    [fault] = faults(**{typed: "x"})
    assert fault.startswith(f"{typed}: ")
    assert f"is {meant} meant?" in fault
    assert "x" not in fault.replace(typed, "").replace(meant, "").split()


@pytest.mark.parametrize("owner", HOST_VARIABLES)
def test_what_a_host_or_a_tool_sets_is_never_taken_for_one(owner: str) -> None:
    names = [name for name in HOST_VARIABLES[owner] if name not in SETTINGS]
    assert len(names) > 8
    assert list(near_misses(names, SETTINGS, ())) == []


def test_names_that_are_meant_as_they_are_can_be_listed() -> None:
    given = {"DATABASE_URI": "of another program", "API_KEYS": "of another as well"}
    assert len(faults(**given)) == 2
    assert faults(**given, IGNORE_SETTINGS="DATABASE_URI")[0].startswith("API_KEYS: ")
    assert faults(**given, IGNORE_SETTINGS="DATABASE_URI, API_KEYS") == []


def test_a_blank_name_sets_nothing_and_one_with_a_line_break_makes_no_second_line() -> None:
    assert faults(DATABSE_URL=" ") == []
    [fault] = faults(**{"API_KEY\n": "x"})
    assert "\n" not in fault


def test_all_of_them_come_together_and_beside_the_other_faults() -> None:
    found = faults(NODE_RNAK="2", PORT="x", DATABSE_URL="y")
    assert [fault.partition(":")[0] for fault in found] == ["PORT", "DATABSE_URL", "NODE_RNAK"]


_NAMES = st.text("ABC_", max_size=8)


@given(_NAMES, _NAMES)
def test_the_distance_is_the_same_both_ways_and_of_one_name_to_itself_nothing(one: str, other: str) -> None:
    assert distance(one, other, 9) == distance(other, one, 9)
    assert (distance(one, other, 9) == 0) == (one == other)


@pytest.mark.parametrize(
    ("one", "other", "slips"), [("AB", "BA", 1), ("ABC", "AC", 1), ("AC", "ABC", 1), ("ABC", "AXC", 1), ("AB", "", 2)]
)
def test_a_slip_is_a_letter_left_out_put_in_replaced_or_swapped_with_the_next(one: str, other: str, slips: int) -> None:
    assert distance(one, other, 9) == slips
