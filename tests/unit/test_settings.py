"""Settings: defaults, every kind of fault, all faults at once, and where secrets come from."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from api.config import platforms as hosting
from api.config.secret_files import generate_secrets
from api.config.settings import RateLimit, Settings, SettingsError
from api.signing.keys import SigningKey
from failover.session import taken_apart

ROOT = Path(__file__).resolve().parents[2]
MADE = generate_secrets()
SECRETS = MADE.settings()
POSTGRES = "postgresql://vendor:hunter2@db.example:5432/ledger?sslmode=require"


def settings(**environ: str) -> Settings:
    return Settings.from_env(SECRETS | environ)


def faults(environ: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return caught.value.faults


def test_without_any_setting_a_node_has_the_contracts_defaults() -> None:
    got = settings()
    assert (got.port, got.host) == (5000, "0.0.0.0")
    assert got.data_dir == ROOT / "data"
    assert got.db_path == ROOT / "data" / "protecao.db"
    assert got.queue_path == ROOT / "data" / "sync_queue.db"
    assert got.database_url == f"sqlite:///{ROOT}/data/protecao.db"
    assert got.embedded
    assert (got.node_rank, got.node_url, got.node_region, got.peer_urls) == (1, None, None, ())
    assert got.node_id
    assert (got.heartbeat_interval, got.heartbeat_timeout, got.failback_delay) == (1.5, 6.0, 30.0)
    assert (got.require_api_key, got.require_signature) == (True, True)
    assert got.workers == min(2, hosting.cpu_limit())
    assert got.rate_limit == RateLimit(30, 60.0)
    assert (got.smtp_enabled, got.cors_origins, got.trusted_proxies) == (False, (), 0)
    assert (got.isolated_max_age, got.check_retention_days, got.event_retention_days) == (604_800.0, 7, 90)
    assert (got.log_level, got.log_format, got.flask_env, got.demo) == ("INFO", "json", "production", False)
    assert got.platform is None


def test_every_setting_that_is_given_is_taken() -> None:
    got = settings(
        PORT="8080",
        HOST="::1",
        DATABASE_URL=POSTGRES,
        NODE_ID="railway-1",
        NODE_RANK="2",
        NODE_URL="https://a.example/",
        PEER_URLS="https://b.example, http://127.0.0.1:5001/x/",
        HEARTBEAT_INTERVAL="0.1",
        HEARTBEAT_TIMEOUT="0.3",
        FAILBACK_DELAY="0",
        REQUIRE_API_KEY="no",
        REQUIRE_SIGNATURE="FALSE",
        WEB_CONCURRENCY="4",
        SMTP_ENABLED="on",
        CORS_ORIGINS="https://shop.example,http://localhost:3000/",
        TRUSTED_PROXIES="1",
        CHECK_RETENTION_DAYS="1",
        EVENT_RETENTION_DAYS="365",
        LOG_LEVEL="debug",
        LOG_FORMAT="TEXT",
        FLASK_ENV="development",
    )
    assert (got.port, got.host, got.node_id, got.node_rank) == (8080, "::1", "railway-1", 2)
    assert (got.database_url, got.embedded) == (POSTGRES, False)
    assert got.node_url == "https://a.example"
    assert got.peer_urls == ("https://b.example", "http://127.0.0.1:5001/x")
    assert (got.heartbeat_interval, got.heartbeat_timeout, got.failback_delay) == (0.1, 0.3, 0.0)
    assert (got.require_api_key, got.require_signature, got.smtp_enabled) == (False, False, True)
    assert (got.workers, got.trusted_proxies) == (4, 1)
    assert got.cors_origins == ("https://shop.example", "http://localhost:3000")
    assert (got.check_retention_days, got.event_retention_days) == (1, 365)
    assert (got.log_level, got.log_format, got.flask_env) == ("DEBUG", "text", "development")


def test_a_platforms_proxies_are_the_default_and_the_setting_goes_before_them() -> None:
    on_fly = {"FLY_APP_NAME": "a", "DATABASE_URL": POSTGRES}
    assert settings(**on_fly).trusted_proxies == 2
    assert settings(**on_fly, TRUSTED_PROXIES="3").trusted_proxies == 3
    assert settings(**on_fly, TRUSTED_PROXIES="0").trusted_proxies == 0


def test_the_log_is_text_for_a_person_at_a_terminal_unless_it_was_chosen() -> None:
    assert Settings.from_env(SECRETS, on_terminal=True).log_format == "text"
    assert Settings.from_env(SECRETS | {"LOG_FORMAT": "json"}, on_terminal=True).log_format == "json"


def test_development_changes_what_is_logged_by_default_and_nothing_else() -> None:
    plain, developing = settings(), settings(FLASK_ENV="development")
    assert (developing.log_level, developing.log_format) == ("DEBUG", "text")
    assert dataclasses.replace(developing, log_level="INFO", log_format="json", flask_env="production") == plain
    chosen = settings(FLASK_ENV="development", LOG_LEVEL="warning", LOG_FORMAT="json")
    assert (chosen.log_level, chosen.log_format) == ("WARNING", "json")
    assert (settings(FLASK_ENV="testing").log_level, settings(FLASK_ENV="testing").log_format) == ("INFO", "json")


@pytest.mark.parametrize(
    ("text", "limit"),
    [("5/second", RateLimit(5, 1.0)), ("1/minute", RateLimit(1, 60.0)), ("9/hour", RateLimit(9, 3600))],
)
def test_a_rate_is_a_count_in_a_window(text: str, limit: RateLimit) -> None:
    assert settings(RATE_LIMIT=text).rate_limit == limit


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604_800), ("12h", 43_200), ("3600", 3600), ("90m", 5400), ("30s", 30)]
)
def test_a_time_may_have_a_unit(text: str, seconds: float) -> None:
    assert settings(ISOLATED_MAX_AGE=text).isolated_max_age == seconds


def test_data_dir_follows_db_path_unless_it_is_set(tmp_path: Path) -> None:
    db_path = tmp_path / "ledger.db"
    assert settings(DB_PATH=str(db_path)).data_dir == tmp_path
    assert settings(DB_PATH=str(db_path)).queue_path == tmp_path / "sync_queue.db"
    both = settings(DB_PATH=str(db_path), DATA_DIR=str(tmp_path / "own"))
    assert (both.db_path, both.data_dir, both.queue_path) == (
        db_path,
        tmp_path / "own",
        tmp_path / "own" / "sync_queue.db",
    )


def test_relative_paths_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    got = settings(DATABASE_URL="sqlite:///mine/a.db", QUEUE_PATH="mine/q.db")
    assert (got.db_path, got.queue_path) == (ROOT / "mine/a.db", ROOT / "mine/q.db")
    assert got.data_dir == ROOT / "data"
    assert got.database_url == f"sqlite:///{ROOT}/mine/a.db"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h/db",
        "postgresql://u:p@h/db",
        "postgresql+psycopg2://u:p%23@h:5432/db?sslmode=verify-full",
        "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgresql:///db?host=/var/run/postgresql",
    ],
)
def test_the_usual_forms_of_a_postgres_url_are_taken_as_given(url: str) -> None:
    assert settings(DATABASE_URL=url).database_url == url


def test_a_schema_of_the_ledgers_own_goes_with_its_url() -> None:
    got = settings(DATABASE_URL="postgresql://u:p@h/db?sslmode=require", LEDGER_SCHEMA="licences")
    assert got.ledger_schema == "licences"
    assert taken_apart(got.database_url) == ("postgresql://u:p@h/db?sslmode=require", "licences")
    assert settings(DATABASE_URL=POSTGRES).ledger_schema is None


def test_an_absolute_sqlite_url_names_the_ledger(tmp_path: Path) -> None:
    got = settings(DATABASE_URL=f"sqlite:///{tmp_path}/a.db", DB_PATH=str(tmp_path / "a.db"))
    assert (got.db_path, got.embedded) == (tmp_path / "a.db", True)
    assert got.database_url == f"sqlite:///{tmp_path}/a.db"


def test_a_blank_setting_is_one_that_is_not_set() -> None:
    assert settings(PORT="", PEER_URLS=" ", NODE_URL="") == settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("PORT", text) for text in ("0", "65536", "-1", "http", "5000.0", "٥٠٠٠", "9" * 5000)],
        *[("HOST", text) for text in ("a b", "a/b", "host\nname")],
        *[("DATABASE_URL", text) for text in ("mysql://h/db", "postgresql+psycopg://h/db", "postgres", "sqlite://")],
        *[("DATABASE_URL", text) for text in ("sqlite:///", "sqlite:///:memory:", "sqlite:////tmp/", "postgres:///db")],
        *[
            ("DATABASE_URL", text)
            for text in ("postgres://u:p#x@h/db", "postgres://u:p@h/d\x00b", "postgres://[::1/db")
        ],
        *[("LEDGER_SCHEMA", text) for text in ("public", "Licences", "a-b", "1a", "pg_mine", 'a"b', "x" * 64)],
        *[("DB_PATH", text) for text in (":memory:", "/tmp/", "/", "a\x00b", "x" * 5000)],
        *[("DATA_DIR", text) for text in (__file__, "a\nb", "x" * 5000)],
        *[("QUEUE_PATH", text) for text in ("/tmp/", "a\rb")],
        *[("NODE_ID", text) for text in ("a b", "ü", "x" * 65, "a\udcffb")],
        *[("NODE_RANK", text) for text in ("0", "-1", "first", "1.5")],
        *[
            ("NODE_URL", text)
            for text in ("ftp://a.example", "a.example", "https://", "https://u:p@a.example", "http://h:0")
        ],
        *[("NODE_URL", text) for text in ("https://a.example?x=1", "http://h:99999", "http://h:x", "http://[::1")],
        *[("PEER_URLS", text) for text in ("https://a.example,,", ",", "https://a.example,b.example")],
        *[("HEARTBEAT_INTERVAL", text) for text in ("0", "-1", "nan", "inf", "1e3", "often", "1w")],
        *[("HEARTBEAT_TIMEOUT", text) for text in ("0", "-6", "NaN", "4.4")],
        *[("FAILBACK_DELAY", text) for text in ("-1", "nan", "Infinity")],
        *[(name, "maybe") for name in ("REQUIRE_API_KEY", "REQUIRE_SIGNATURE", "SMTP_ENABLED", "PROTECAO_DEMO")],
        *[("WEB_CONCURRENCY", text) for text in ("0", "-2", "two", "65")],
        *[("RATE_LIMIT", text) for text in ("0/minute", "30", "-1/minute", "30/fortnight", "30/minute ago")],
        *[
            ("CORS_ORIGINS", text)
            for text in ("shop.example", "https://shop.example/path", "null", "https://a.example,")
        ],
        *[("TRUSTED_PROXIES", text) for text in ("-1", "all", "17")],
        *[("ISOLATED_MAX_AGE", text) for text in ("0", "-1", "nan", "7 weeks", "400d")],
        *[("CHECK_RETENTION_DAYS", text) for text in ("0", "-1", "7d")],
        *[("EVENT_RETENTION_DAYS", text) for text in ("0", "nan")],
        *[("LOG_LEVEL", text) for text in ("LOUD", "10")],
        ("LOG_FORMAT", "xml"),
        ("FLASK_ENV", "a b"),
        *[
            ("API_KEY", text)
            for text in ("", "  ", "short", "a" * 16 + ",", "a" * 16 + ",short", "space in the secret")
        ],
        *[("SHARED_SECRET", text) for text in ("", "x" * 15, "x" * 16 + "é", "x" * 16 + "\n" + "y" * 16)],
        *[("ADMIN_TOKEN", text) for text in ("", "x" * 15, "x" * 16 + "\x00" + "x")],
        *[("SIGNING_KEY", text) for text in ("", "not a key", "-----BEGIN PRIVATE KEY-----\n")],
    ],
)
def test_a_weak_or_malformed_value_is_one_fault_by_its_name(name: str, text: str) -> None:
    found = faults(SECRETS | {name: text})
    assert [fault.partition(":")[0] for fault in found] == [name]


def test_all_faults_come_together_one_on_a_line() -> None:
    environ = {
        "PORT": "x",
        "NODE_RANK": "0",
        "RATE_LIMIT": "x",
        "DATABASE_URL": POSTGRES,
        "API_KEY": "short",
        "HOST": "a b",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    lines = str(caught.value).splitlines()
    names = [fault.partition(":")[0] for fault in caught.value.faults]
    assert sorted(names) == sorted(
        ["PORT", "NODE_RANK", "RATE_LIMIT", "API_KEY", "HOST", "SHARED_SECRET", "ADMIN_TOKEN", "SIGNING_KEY"]
    )
    assert lines[:-1] == list(caught.value.faults)
    assert "flask secrets" in lines[-1]


def test_a_timeout_is_held_against_the_interval_only_where_both_can_be_read() -> None:
    assert faults(SECRETS | {"HEARTBEAT_INTERVAL": "3", "HEARTBEAT_TIMEOUT": "8"})[0].startswith("HEARTBEAT_TIMEOUT")
    assert len(faults(SECRETS | {"HEARTBEAT_INTERVAL": "often", "HEARTBEAT_TIMEOUT": "2"})) == 1
    assert settings(HEARTBEAT_INTERVAL="3", HEARTBEAT_TIMEOUT="9").heartbeat_timeout == 9


def test_two_settings_cannot_name_two_ledgers_or_one_file_twice(tmp_path: Path) -> None:
    two = {"DATABASE_URL": f"sqlite:///{tmp_path}/a.db", "DB_PATH": str(tmp_path / "b.db")}
    assert faults(SECRETS | two)[0].startswith("DB_PATH")
    same = {"DB_PATH": str(tmp_path / "a.db"), "QUEUE_PATH": str(tmp_path / "a.db")}
    assert faults(SECRETS | same)[0].startswith("QUEUE_PATH")


def test_the_demo_never_touches_a_ledger_that_was_named(tmp_path: Path) -> None:
    assert settings(PROTECAO_DEMO="1").demo
    for url in (POSTGRES, f"sqlite:///{tmp_path}/a.db"):
        assert [fault.partition(":")[0] for fault in faults(SECRETS | {"PROTECAO_DEMO": "1", "DATABASE_URL": url})] == [
            "PROTECAO_DEMO"
        ]
        assert not settings(PROTECAO_DEMO="0", DATABASE_URL=url).demo


@pytest.mark.parametrize("where", ["API_KEY", "SHARED_SECRET"])
def test_the_admin_token_is_none_of_the_secrets_that_clients_carry(where: str) -> None:
    both = {where: f"{MADE.api_key},{SECRETS['ADMIN_TOKEN']}"}
    assert faults(SECRETS | both)[0].startswith("ADMIN_TOKEN")


def test_several_keys_and_secrets_are_separated_by_commas() -> None:
    keys, secrets = (tuple(os.urandom(16).hex() for _ in range(2)) for _ in range(2))
    got = settings(API_KEY=", ".join(keys), SHARED_SECRET=",".join((*secrets, secrets[0])))
    assert (got.api_keys, got.shared_secrets) == (keys, secrets)


@pytest.mark.parametrize("form", ["pem", "escaped", "both"])
def test_a_signing_key_may_be_pem_or_pem_with_escaped_line_breaks_or_several(form: str) -> None:
    first, second = MADE.signing_key.pem(), MADE.spare_signing_key.pem()
    text = {"pem": first, "escaped": first.replace("\n", "\\n"), "both": first + second}[form]
    expected: tuple[SigningKey, ...] = (MADE.signing_key, MADE.spare_signing_key)
    assert settings(SIGNING_KEY=text).signing_keys == (expected if form == "both" else expected[:1])


# -- where secrets come from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SECRETS, "DATABASE_URL"])
def test_any_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    texts = SECRETS | {"DATABASE_URL": POSTGRES}
    file.write_text(texts[name] + "\r\n", encoding="utf-8-sig")
    environ = {other: text for other, text in texts.items() if other != name} | {f"{name}_FILE": str(file)}
    assert Settings.from_env(environ) == Settings.from_env(texts)


def test_a_secret_file_that_is_not_there_empty_or_no_text_is_a_fault_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    others = {name: text for name, text in SECRETS.items() if name != "API_KEY"}
    for file in ("missing", "empty", "binary", "."):
        found = faults(others | {"API_KEY_FILE": str(tmp_path / file)})
        assert [fault.partition(":")[0] for fault in found] == ["API_KEY_FILE"]
        assert str(tmp_path) not in found[0]
    (tmp_path / "nul").write_bytes(b"a" * 20 + b"\x00\n" + b"b" * 20)
    assert faults(others | {"API_KEY_FILE": str(tmp_path / "nul")})[0].startswith("API_KEY:")


def test_a_secret_and_its_file_together_are_a_fault() -> None:
    found = faults(SECRETS | {"ADMIN_TOKEN_FILE": "/anything"})
    assert [fault.partition(":")[0] for fault in found] == ["ADMIN_TOKEN"]


def test_an_embedded_ledger_gets_its_secrets_made_once(tmp_path: Path) -> None:
    first = Settings.from_env({"DATA_DIR": str(tmp_path / "new")})
    again = Settings.from_env({"DATA_DIR": str(tmp_path / "new")})
    assert first == again
    assert first.api_keys
    assert first.shared_secrets
    assert first.admin_token
    assert len(first.signing_keys) == 1


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    made = Settings.from_env({"DATA_DIR": str(tmp_path)})
    got = Settings.from_env({"DATA_DIR": str(tmp_path), "API_KEY": MADE.api_key})
    assert got.api_keys == (MADE.api_key,)
    assert got.admin_token == made.admin_token


def test_with_all_secrets_given_no_file_is_made(tmp_path: Path) -> None:
    settings(DATA_DIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_shared_ledger_never_has_secrets_made(tmp_path: Path) -> None:
    found = faults({"DATA_DIR": str(tmp_path), "DATABASE_URL": POSTGRES})
    assert [fault.partition(":")[0] for fault in found] == list(SECRETS)
    assert list(tmp_path.iterdir()) == []


def test_a_platform_without_a_disk_that_lasts_is_given_its_secrets(tmp_path: Path) -> None:
    railway = {"DATA_DIR": str(tmp_path), "RAILWAY_REPLICA_ID": "r-1", "SINGLE_NODE": "true"}
    found = faults(railway | {"API_KEY": SECRETS["API_KEY"]})
    assert [fault.partition(":")[0] for fault in found] == ["SHARED_SECRET", "ADMIN_TOKEN", "SIGNING_KEY"]
    got = settings(**railway)
    assert (got.platform, got.disk, got.node_id) == ("railway", "ephemeral", "r-1")


def test_a_platform_with_a_volume_makes_its_own(tmp_path: Path) -> None:
    railway = {"RAILWAY_VOLUME_MOUNT_PATH": str(tmp_path), "SINGLE_NODE": "true"}
    got = Settings.from_env(railway | {"DATA_DIR": str(tmp_path / "node")})
    assert got.disk == "persistent"
    assert (tmp_path / "node" / "secrets.json").exists()


_OF_SEVERAL_NODES: tuple[tuple[dict[str, str], str], ...] = (
    ({"PEER_URLS": "https://b.example"}, "PEER_URLS names other nodes"),
    ({"NODE_RANK": "2"}, "NODE_RANK is 2"),
    ({"RAILWAY_PROJECT_ID": "p"}, "runs on railway"),
    ({"RENDER": "true"}, "runs on render"),
    ({"FLY_APP_NAME": "a"}, "runs on fly"),
    ({"DYNO": "web.1"}, "runs on heroku"),
    ({"PYTHONANYWHERE_DOMAIN": "pythonanywhere.com"}, "runs on pythonanywhere"),
)


@pytest.mark.parametrize(("several", "why"), _OF_SEVERAL_NODES)
def test_an_embedded_ledger_beside_other_nodes_is_refused_unless_it_is_meant(
    several: dict[str, str], why: str, tmp_path: Path
) -> None:
    embedded = {"DATA_DIR": str(tmp_path / "data"), **several}
    for given in (SECRETS, SECRETS | {"DATABASE_URL": f"sqlite:///{tmp_path}/a.db"}):
        [fault] = faults(given | embedded)
        assert fault.startswith("DATABASE_URL: ")
        assert why in fault
        assert "SINGLE_NODE=true" in fault
        assert Settings.from_env(given | embedded | {"SINGLE_NODE": "true"}).embedded
    assert not Settings.from_env(SECRETS | embedded | {"DATABASE_URL": POSTGRES}).embedded


def test_where_the_shared_ledger_was_forgotten_all_that_goes_with_it_is_named_at_once(tmp_path: Path) -> None:
    found = faults({"DATA_DIR": str(tmp_path / "data"), "NODE_RANK": "2"})
    assert [fault.partition(":")[0] for fault in found] == ["DATABASE_URL", *SECRETS]
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_of_secrets_is_a_fault_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    found = faults({"DATA_DIR": str(tmp_path), "PORT": "x"})
    assert [fault.partition(":")[0] for fault in found] == ["DATA_DIR", "PORT"]


def test_nothing_is_written_while_the_place_itself_is_in_doubt(tmp_path: Path) -> None:
    faults({"DATA_DIR": str(tmp_path / "new"), "QUEUE_PATH": "/tmp/"})
    assert not (tmp_path / "new").exists()


# -- what is shown --------------------------------------------------------------------------------------------------


def test_repr_masks_every_secret() -> None:
    shown = repr(settings(DATABASE_URL=POSTGRES))
    for secret in (*SECRETS.values(), "hunter2", MADE.signing_key.kid):
        assert secret not in shown
    assert "api_keys='***'" in shown
    assert "port=5000" in shown


@pytest.mark.parametrize("name", ["API_KEY", "SHARED_SECRET", "ADMIN_TOKEN", "SIGNING_KEY"])
@pytest.mark.parametrize("text", ["secretvalue", "secretvalue\x00more", "secret value that is long enough"])
def test_a_fault_never_shows_the_secret(name: str, text: str) -> None:
    assert "secretvalue" not in str(faults(SECRETS | {name: text}))
    assert "secret value" not in str(faults(SECRETS | {name: text}))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h/db",
        "postgres://u:hunter2@[h/db",
        "postgres://u:hunter2%@h/db",
        "postgres://u:x/hunter2@h/db",
    ],
)
def test_a_fault_never_shows_the_database_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(SECRETS | {"DATABASE_URL": url})
    assert "hunter2" not in str(caught.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().port = 1  # type: ignore[misc]


def test_importing_the_settings_reads_no_environment() -> None:
    environ = {"PATH": os.environ["PATH"], "PORT": "x", "DATABASE_URL": "nonsense", "API_KEY": ""}
    done = subprocess.run([sys.executable, "-c", "import api.config.settings"], cwd=ROOT, env=environ, timeout=60)
    assert done.returncode == 0


def test_a_node_takes_its_address_and_region_from_the_platform_where_they_are_not_set() -> None:
    fly = {"FLY_APP_NAME": "a", "FLY_MACHINE_ID": "m1", "FLY_REGION": "gru", "DATABASE_URL": POSTGRES}
    got = settings(**fly)
    assert (got.node_id, got.node_url, got.node_region) == ("m1", "https://a.fly.dev", "gru")
    got = settings(**fly, NODE_ID="two", NODE_URL="https://own.example", NODE_REGION="br")
    assert (got.node_id, got.node_url, got.node_region) == ("two", "https://own.example", "br")


def test_an_address_of_the_platform_that_is_none_is_no_fault_of_the_operators() -> None:
    assert settings(RAILWAY_PUBLIC_DOMAIN="a domain", DATABASE_URL=POSTGRES).node_url is None
