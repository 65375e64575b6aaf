"""`license-admin secrets`: blocks that a node starts with, keys that clients pin, an example that is filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.config.settings import Settings
from api.signing import parse_signing_keys
from license_admin import deployment
from license_client.keys import pinned
from tests.support.license_admin import Vendor

HOSTS = ["railway=https://shop.up.railway.app", "render=https://shop.onrender.com", "fly=https://shop.fly.dev"]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    arguments = [text for host in HOSTS for text in ("--host", host)]
    text = Vendor([], tmp_path_factory.mktemp("none")).ok("secrets", *arguments, "--product", "editor")
    assert text.isascii()
    return text.split("\n\n")


def settings_in(block: str) -> dict[str, str]:
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_each_hosts_block_starts_a_node_as_it_stands(blocks: list[str], tmp_path: Path) -> None:
    for rank, (block, host) in enumerate(zip(blocks[:3], HOSTS, strict=True), start=1):
        name, url = host.split("=")
        given = settings_in(block)
        settings = Settings.from_env(given | {"DATABASE_URL": "postgresql://u:p@db/l", "DATA_DIR": str(tmp_path)})
        assert (settings.node_id, settings.node_rank, settings.node_url) == (f"{name}-1", rank, url)
        assert list(settings.peer_urls) == [each.split("=")[1] for each in HOSTS if each != host]
        assert {name: given[name] for name in given if "NODE" not in name and "PEER" not in name} == {
            name: value for name, value in settings_in(blocks[0]).items() if "NODE" not in name and "PEER" not in name
        }


def test_programs_get_both_public_keys_and_the_spare_stays_apart(blocks: list[str]) -> None:
    public = [json.loads(line) for line in blocks[3].splitlines()[1:]]
    assert len(pinned([{"keys": public}])) == 2
    own = parse_signing_keys(settings_in(blocks[0])["SIGNING_KEY"])
    spare = parse_signing_keys(settings_in(blocks[-1])["SPARE_SIGNING_KEY"])
    assert [key.public_jwk for key in (*own, *spare)] == public
    assert settings_in(blocks[-1])["SPARE_SIGNING_KEY"] not in "".join(blocks[:-1])
    script = blocks[4]
    for part in (*[host.split("=")[1] for host in HOSTS], "editor", settings_in(blocks[0])["API_KEY"], public[1]["x"]):
        assert part in script
    assert settings_in(blocks[5])["LICENSE_ADMIN_TOKEN"] == settings_in(blocks[0])["ADMIN_TOKEN"]


def test_hosts_without_addresses_and_twice_the_same(tmp_path: Path) -> None:
    vendor = Vendor([], tmp_path)
    text = vendor.ok("secrets", "--host", "fly", "--host", "fly")
    assert "NODE_ID=fly-2\nNODE_RANK=2\n" in text
    assert "# PEER_URLS: the addresses" in text
    made = vendor.json("secrets", "--host", "render")
    assert made["nodes"][0]["NODE_ID"] == "render-1"
    for wrong in ("", "a b", "x=http://example.com", "x=nonsense"):
        assert "--host" in vendor.fails(2, "secrets", "--host", wrong)


def test_secrets_are_never_shown_by_accident() -> None:
    made = deployment.generate()
    assert made.api_key not in repr(made)
    assert len({made.api_key, made.shared_secret, made.admin_token}) == 3
