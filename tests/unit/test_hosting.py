"""Hosting: which platform, which replica, does the disk last, how many CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from api.config.platforms import Disk, Hosting, Mount, cpu_limit, detect, mount_holding, mount_of, parse_mounts

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - overlay overlay rw
40 27 8:1 / /var/data rw,noatime shared:2 master:1 - ext4 /dev/sdb rw
41 40 0:9 / /var/data/in\040memory rw - tmpfs tmpfs rw
42 27 8:2 / /srv rw - tmpfs tmpfs rw
43 27 8:2 / /srv rw - xfs /dev/sdc rw
a line that is cut
"""


def at(point: str, fstype: str) -> Mount:
    return Mount(point, fstype)


@pytest.mark.parametrize(
    ("environ", "folder", "mount", "expected"),
    [
        ({"RAILWAY_REPLICA_ID": "r1"}, "/data", at("/data", "ext4"), Hosting("railway", "r1", "ephemeral")),
        ({"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, "/data/n", None, Hosting("railway", None, "persistent")),
        ({"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, "/database", None, Hosting("railway", None, "ephemeral")),
        ({"RENDER": "true", "RENDER_INSTANCE_ID": "i1"}, "/app", at("/", "ext4"), Hosting("render", "i1", "ephemeral")),
        ({"RENDER": "true"}, "/var/data", at("/var/data", "ext4"), Hosting("render", None, "persistent")),
        ({"RENDER": "true"}, "/tmp", at("/tmp", "tmpfs"), Hosting("render", None, "ephemeral")),
        ({"RENDER": "true"}, "/var/data", None, Hosting("render", None, "ephemeral")),
        ({"FLY_APP_NAME": "a", "FLY_MACHINE_ID": "m"}, "/data", at("/data", "ext4"), Hosting("fly", "m", "persistent")),
        ({"FLY_APP_NAME": "a"}, "/app", at("/", "ext4"), Hosting("fly", None, "ephemeral")),
        ({"FLY_APP_NAME": "a"}, "/app", at("/app", "overlay"), Hosting("fly", None, "ephemeral")),
        ({"PYTHONANYWHERE_DOMAIN": "x"}, "/home/me/data", None, Hosting("pythonanywhere", None, "persistent")),
        ({"PYTHONANYWHERE_SITE": "x"}, "/tmp/data", None, Hosting("pythonanywhere", None, "ephemeral")),
        ({"DYNO": "web.1"}, "/data", at("/data", "ext4"), Hosting("heroku", "web.1", "ephemeral")),
        ({}, "/srv", at("/", "ext4"), Hosting(None, None, "persistent")),
        ({}, "/dev/shm/x", at("/dev/shm", "tmpfs"), Hosting(None, None, "ephemeral")),
        ({}, "/app", at("/", "overlay"), Hosting(None, None, "unknown")),
        ({}, "/srv", None, Hosting(None, None, "unknown")),
        ({"RAILWAY_TOKEN": "of the command line"}, "/srv", at("/", "ext4"), Hosting(None, None, "persistent")),
    ],
)  # fmt: skip
def test_a_disk_is_ephemeral_on_a_platform_unless_proven_otherwise(
    environ: dict[str, str], folder: str, mount: Mount | None, expected: Hosting
) -> None:
    found = detect(environ, Path(folder), lambda path: mount if path == Path(folder) else None)
    assert (found.platform, found.replica_id, found.disk) == (expected.platform, expected.replica_id, expected.disk)


@pytest.mark.parametrize(
    ("environ", "name", "url", "region"),
    [
        (
            {"RAILWAY_REPLICA_ID": "r1", "RAILWAY_PUBLIC_DOMAIN": "a.up.railway.app", "RAILWAY_REPLICA_REGION": "us"},
            *("r1", "https://a.up.railway.app", "us"),
        ),
        ({"RAILWAY_REPLICA_ID": "r1"}, "r1", None, None),
        (
            {"RENDER": "true", "RENDER_INSTANCE_ID": "srv-1-a", "RENDER_EXTERNAL_URL": "https://a.onrender.com"},
            *("srv-1-a", "https://a.onrender.com", None),
        ),
        ({"RENDER": "true", "RENDER_SERVICE_ID": "srv-1", "RENDER_EXTERNAL_URL": ""}, "srv-1", None, None),
        (
            {"FLY_APP_NAME": "a", "FLY_MACHINE_ID": "m1", "FLY_REGION": "gru"},
            *("m1", "https://a.fly.dev", "gru"),
        ),
        (
            {"PYTHONANYWHERE_DOMAIN": "pythonanywhere.com", "USER": "me"},
            *("me.pythonanywhere.com", "https://me.pythonanywhere.com", None),
        ),
        ({"PYTHONANYWHERE_DOMAIN": "pythonanywhere.com"}, None, None, None),
    ],
)  # fmt: skip
def test_a_platform_says_its_own_name_address_and_region(
    environ: dict[str, str], name: str | None, url: str | None, region: str | None
) -> None:
    found = detect(environ, Path("/app/data"), lambda _path: None)
    assert (found.replica_id, found.url, found.region) == (name, url, region)


#: What each platform's proxy was seen to hand on of a call from 1.1.1.1 that made up 2.2.2.2 (as of 2026-12).
@pytest.mark.parametrize(
    ("environ", "forwarded"),
    [
        ({"RAILWAY_REPLICA_ID": "r1"}, "1.1.1.1, 152.233.33.161"),
        ({"RENDER": "true"}, "2.2.2.2,1.1.1.1, 172.71.95.118, 10.19.64.237"),
        ({"FLY_APP_NAME": "a"}, "2.2.2.2, 1.1.1.1, 2a09:8280:1::af:1aa1:0"),
        ({"DYNO": "web.1"}, "2.2.2.2, 1.1.1.1"),
    ],
)
def test_a_client_has_its_own_address_behind_each_platforms_proxy(environ: dict[str, str], forwarded: str) -> None:
    proxies = detect(environ, Path("/app/data"), lambda _path: None).proxies
    call = {"REMOTE_ADDR": "10.0.0.9", "HTTP_X_FORWARDED_FOR": forwarded}
    ProxyFix(lambda _environ, _start: [], x_for=proxies)(call, lambda *_: lambda _: None)
    assert call["REMOTE_ADDR"] == "1.1.1.1"


@pytest.mark.parametrize("environ", [{}, {"PYTHONANYWHERE_DOMAIN": "pythonanywhere.com", "USER": "me"}])
def test_no_header_is_believed_where_nothing_is_known_of_a_proxy(environ: dict[str, str]) -> None:
    assert detect(environ, Path("/app/data"), lambda _path: None).proxies == 0


@pytest.mark.parametrize(
    ("path", "fstype"),
    [
        ("/etc", "overlay"),
        ("/var/data", "ext4"),
        ("/var/data/node/a.db", "ext4"),
        ("/var/database", "overlay"),
        ("/var/data/in memory/x", "tmpfs"),
        ("/srv/x", "xfs"),
    ],
)
def test_a_path_lies_on_the_longest_mount_that_holds_it_and_the_latest_of_two(path: str, fstype: str) -> None:
    mount = mount_holding(Path(path), parse_mounts(MOUNTINFO))
    assert mount is not None
    assert mount.fstype == fstype


def test_where_no_mount_is_known_none_is_named() -> None:
    assert mount_holding(Path("/srv"), []) is None
    assert parse_mounts("") == []


def test_this_machine_says_what_its_disk_is(tmp_path: Path) -> None:
    answers: set[Disk] = {"persistent", "ephemeral", "unknown"}
    assert detect({}, tmp_path).disk in answers
    assert mount_of(tmp_path / "not there yet") == mount_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu.max": "garbage"}, 8),
        ({"cpu.max": "100000 0\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "0\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_the_cpu_quota_is_rounded_up_and_never_above_the_cpus_there_are(
    files: dict[str, str], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert cpu_limit(lambda path: files.get(str(path.relative_to("/sys/fs/cgroup")))) == limit


def test_this_machine_has_a_cpu() -> None:
    assert cpu_limit() >= 1
