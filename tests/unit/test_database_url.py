"""`DATABASE_URL` as libpq reads it: what it takes is taken, what it does not is named, and no password is repeated."""

from __future__ import annotations

import re

import pytest

from api.config.database_url import check

#: None of these may be repeated, escaped or not.
_PASSWORD = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h/db",
        "postgresql://u:p@h",
        "postgresql+psycopg2://u:p%23%40%25@h:5432/db?sslmode=verify-full",
        "postgresql://u:p?w@h/db",  # libpq takes it, and so does psql
        "postgresql://u:p:w@h/db",
        "postgresql://h1,h2:2/db?target_session_attrs=primary",
        "postgresql://u@[::1]:5432/db",
        "postgresql:///db?host=/var/run/postgresql&user=a@b",
        "postgresql://h/db?ssl=true&connect_timeout=10&application_name=x",
        "postgresql://h/db?options=-c%20work_mem%3D7MB",
        "postgresql://h/db?sslmode=verify-ca&sslrootcert=system",
    ],
)
def test_what_libpq_takes_is_taken(url: str) -> None:
    check(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@h/db?pgbouncer=true", r"pgbouncer= is Prisma's .* remove it"),
        ("postgresql://u:hunter2@h/db?schema=public", r"schema= .* LEDGER_SCHEMA"),
        ("postgresql://u:hunter2@h/db?pgbouncer=true&connection_limit=1", r"pgbouncer= .*; connection_limit= "),
        ("postgresql://u:hunter2@h/db?sslmode=required", r"sslmode= .*is require meant"),
        ("postgresql://u:hunter2@h/db?sslmode=no-verify", r"sslmode= .*is require meant"),
        ("postgresql://u:hunter2@h/db?ssl_mode=require", r"ssl_mode= .*is sslmode= meant"),
        ("postgresql://u:hunter2@h/db?ssl=1", r"ssl= .*sslmode=require"),
        ("postgresql://u:hunter2%w@h/db", r"a % that begins no escape.*%25"),
        ("postgresql://u:hunter2%00@h/db", r"%00"),
        ("postgresql://u:hunter2@hunter2@h/db", r"more than one @.*%40"),
        ("postgresql://u:hunter2/hunter2@h/db", r"a / before the @.*%2F"),
        ("postgresql://u:hunter2/db", r"a port that is no number"),
        ("postgresql://u:hunter2#x@h/db", r"%23"),
        ("postgresql://u:hunter2@[::1/db", r"a \[ without its \]"),
        ("postgresql://u@h:99999/db", r"a port that is no number"),
        ("postgresql://u@h:0/db", r"a port that is no number"),
        ("postgresql:///db?host=a,b,c&port=1,2", r"2 ports for 3 hosts"),
        ("postgresql://h,,i/db", r"an empty place among its hosts"),
        ("postgresql:///db", r"names no host"),
        ("postgresql://h/db?sslmode", r"name=value"),
        ("postgresql://h/db?options=-c%20a=b", r"%3D"),
        ("postgresql://h/db?options=-csearch_path%3Dx", r"LEDGER_SCHEMA"),
        ("postgresql://h,i/db?target_session_attrs=standby", r"takes no writes"),
        ("postgresql://u:[YOUR-PASSWORD]@h:5432/db", r"a placeholder where the password"),
        ("postgresql://u:%3Cpassword%3E@h:5432/db", r"a placeholder where the password"),
        ("postgresql://u:SUA_SENHA_AQUI@h:5432/db", r"a placeholder where the password"),
        ("postgresql://h/db?target_session_attrs=readwrite", r"is read-write meant"),
        ("postgresql://h/db?connect_timeout=soon", r"connect_timeout= must be a whole number"),
        (
            "postgresql://h/db?sslmode=verify-full&sslrootcert=/not/there",
            r"sslrootcert= names a file that is not there",
        ),
        ("postgresql://u:hunter2/x?hunter2@h/db", r"name=value"),
        ("postgresql://h/db?hunter2%21=1", r"a parameter behind its \? that libpq does not know"),
    ],
)
def test_what_libpq_does_not_take_is_named(url: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(url)
    assert re.search(said, str(caught.value)), str(caught.value)
    assert _PASSWORD not in str(caught.value)
