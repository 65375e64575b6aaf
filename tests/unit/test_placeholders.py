"""What stands in guides where a secret is to be put is refused as one; what was generated never is."""

from __future__ import annotations

import secrets
import string

import pytest

from api.config.placeholders import is_placeholder
from api.config.secret_files import generate_secrets
from api.config.settings import Settings, SettingsError

_COPIED = """
SUA_API_KEY_AQUI SEU_SHARED_SECRET_AQUI COLOQUE_SUA_CHAVE_AQUI SUBSTITUA_PELO_SEU_SEGREDO TROQUE_ESTE_SEGREDO
TU_CLAVE_SECRETA_AQUI changeme-changeme changemechangeme CHANGE_ME_PLEASE_NOW your-secret-here your-api-key-goes-here
yoursecrethere12 PASTE_THE_API_KEY_HERE REPLACE_ME_WITH_A_SECRET put-a-random-string-here this-is-a-secret-key
my-super-secret-key-123 supersecretsupersecret insert_your_token_here <your-api-key> ${API_KEY_SECRET} {{shared_secret}}
[YOUR-API-KEY-HERE] %SHARED_SECRET% xxxxxxxxxxxxxxxxxxxx XXX-YOUR-KEY-XXX sk_live_xxxxxxxxxxxx ****************
---------------- aaaaaaaaaaaaaaaaa 0000000000000000 1234567890123456 0123456789abcdef abcdefghijklmnop qwertyuiopasdfgh
password12345678 secret1234567890 example-secret-0001 changeme2026changeme TODO_TODO_TODO_TODO undefinedundefined
"""


@pytest.mark.parametrize("text", _COPIED.split())
def test_what_was_copied_from_a_guide_is_no_secret(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("name", ["API_KEY", "SHARED_SECRET", "ADMIN_TOKEN"])
def test_a_placeholder_is_a_fault_of_its_setting_that_does_not_repeat_it(name: str) -> None:
    made = generate_secrets().settings()
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(made | {name: "SUA_API_KEY_AQUI"})
    [fault] = caught.value.faults
    assert fault.startswith(f"{name}: is a placeholder")
    assert "AQUI" not in fault


def test_one_of_several_keys_may_be_none_either() -> None:
    made = generate_secrets()
    with pytest.raises(SettingsError):
        Settings.from_env(made.settings() | {"API_KEY": f"{made.api_key},changeme-changeme"})


@pytest.mark.parametrize(
    "alphabet", [string.hexdigits[:16], string.ascii_lowercase, string.ascii_letters + "0123456789-_"]
)
def test_what_is_random_is_a_secret(alphabet: str) -> None:
    for _ in range(500):
        assert not is_placeholder("".join(secrets.choice(alphabet) for _ in range(24)))


@pytest.mark.parametrize("text", ["correct-horse-battery-staple", "blue-Ocean-77-violin", "83749201837465920183"])
def test_a_secret_that_somebody_thought_of_is_taken(text: str) -> None:
    assert not is_placeholder(text)
