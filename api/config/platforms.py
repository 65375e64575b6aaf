"""Where this node runs: platform, replica's name, address and region, proxies, whether the disk lasts, how many CPUs.

Pure but for two small look-ups (the mount table, the CPU quota), and both can be replaced by the caller.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Disk = Literal["persistent", "ephemeral", "unknown"]

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_CONTAINER_LAYER = frozenset({"overlay", "aufs"})
_CGROUP = Path("/sys/fs/cgroup")

#: Where each platform's proxy writes the client's address, counted from the right of `X-Forwarded-For`, and what is
#: right of it. As of 2026-12; docs/deploy/client-addresses.md says how each is known. A platform that is not here gets
#: 0: too high a number lets clients choose their address, too low a one only makes them share one.
_PROXIES = {
    "railway": 2,  # its edge's own address; what a client sends is thrown away
    "render": 3,  # Cloudflare's address, then Render's own; what a client sends stays on the left
    "fly": 2,  # the application's own address; what a client sends stays on the left
    "heroku": 1,  # nothing; what a client sends stays on the left
}


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system: where it begins, and its type (`ext4`, `tmpfs`, ...)."""

    point: str
    fstype: str


@dataclass(frozen=True, slots=True)
class Hosting:
    """What is known about the host. All but `disk` are None where nothing says them.

    `url` is the https address that the platform gave this service; whether it is one is for the settings to say.
    `proxies`: the client's place in `X-Forwarded-For` from the right, as the platform's proxy writes it; 0 where that
    is not known.
    """

    platform: str | None
    replica_id: str | None
    disk: Disk
    url: str | None = None
    region: str | None = None
    proxies: int = 0


MountLookup = Callable[[Path], Mount | None]
ReadText = Callable[[Path], str | None]


def read_text(path: Path) -> str | None:
    """The text of a small file, or None where there is none to read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The mounts in the text of `/proc/self/mountinfo`, in its order (proc_pid_mountinfo(5))."""
    mounts = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if separator and len(fields) > 4 and right:
            mounts.append(Mount(_unescape(fields[4]), right.split(" ")[0]))
    return mounts


def mount_holding(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that `path` (absolute) lies on: the longest that holds it; of two on one point, the later."""
    best: Mount | None = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mount_of(path: Path) -> Mount | None:
    """The mount that `path` lies on, or None where the system does not tell."""
    return mount_holding(path.resolve(), parse_mounts(read_text(Path("/proc/self/mountinfo")) or ""))


def detect(environ: Mapping[str, str], data_dir: Path, mount_of: MountLookup = mount_of) -> Hosting:
    """The host that `environ` speaks of, and whether `data_dir` (absolute) outlives a deploy.

    On a platform a disk is ephemeral unless proven otherwise; elsewhere it lasts unless it is memory, and is
    unknown in a container's own layer or where no mount is found.
    """
    host = _detect(environ, data_dir, mount_of)
    return replace(host, proxies=_PROXIES.get(host.platform or "", 0))


def _detect(environ: Mapping[str, str], data_dir: Path, mount_of: MountLookup) -> Hosting:
    if any(name.startswith("RAILWAY_") and not name.endswith("_TOKEN") for name in environ):
        return _railway(environ, data_dir)
    if environ.get("RENDER") or environ.get("RENDER_INSTANCE_ID"):
        return _render(environ, _mounted_disk(mount_of(data_dir)))
    if environ.get("FLY_APP_NAME") or environ.get("FLY_MACHINE_ID"):
        return _fly(environ, _mounted_disk(mount_of(data_dir)))
    if environ.get("PYTHONANYWHERE_SITE") or environ.get("PYTHONANYWHERE_DOMAIN"):
        return _pythonanywhere(environ, data_dir)
    if environ.get("DYNO"):
        return Hosting("heroku", environ["DYNO"], "ephemeral")
    return Hosting(None, None, _plain_disk(mount_of(data_dir)))


def _railway(environ: Mapping[str, str], data_dir: Path) -> Hosting:
    # The domain is there once the service was given one; a custom domain comes before Railway's own.
    url, region = _https(environ.get("RAILWAY_PUBLIC_DOMAIN")), environ.get("RAILWAY_REPLICA_REGION")
    disk = _railway_disk(environ, data_dir)
    return Hosting("railway", environ.get("RAILWAY_REPLICA_ID") or None, disk, url, region or None)


def _render(environ: Mapping[str, str], disk: Disk) -> Hosting:
    replica = environ.get("RENDER_INSTANCE_ID") or environ.get("RENDER_SERVICE_ID")
    return Hosting("render", replica or None, disk, environ.get("RENDER_EXTERNAL_URL") or None)


def _fly(environ: Mapping[str, str], disk: Disk) -> Hosting:
    app = environ.get("FLY_APP_NAME")
    url, region = _https(f"{app}.fly.dev" if app else None), environ.get("FLY_REGION")
    return Hosting("fly", environ.get("FLY_MACHINE_ID") or None, disk, url, region or None)


def _pythonanywhere(environ: Mapping[str, str], data_dir: Path) -> Hosting:
    """Web workers and always-on tasks may have different host names there: the site's name is the same in both."""
    user, domain = environ.get("USER"), environ.get("PYTHONANYWHERE_DOMAIN")
    site = f"{user}.{domain}" if user and domain else None
    disk: Disk = "persistent" if data_dir.is_relative_to("/home") else "ephemeral"  # only home folders are kept
    return Hosting("pythonanywhere", site, disk, _https(site))


def _https(host: str | None) -> str | None:
    return f"https://{host}" if host else None


def cpu_limit(read: ReadText = read_text) -> int:
    """How many CPUs this process may use, at least 1: the cgroup's quota rounded up, no more than it may run on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(read)
    return max(1, min(cpus, math.ceil(quota))) if quota else max(1, cpus)


def _quota(read: ReadText) -> float | None:
    version_2 = read(_CGROUP / "cpu.max")
    if version_2 is not None:
        return _ratio(version_2.split())
    pair = (read(_CGROUP / "cpu/cpu.cfs_quota_us") or "", read(_CGROUP / "cpu/cpu.cfs_period_us") or "")
    return _ratio([number.strip() for number in pair])


def _ratio(pair: list[str]) -> float | None:
    """Quota by period; None where there is no quota, which is written `max` or -1."""
    if len(pair) != 2 or not (pair[0].isdecimal() and pair[1].isdecimal()) or int(pair[1]) == 0:
        return None
    return int(pair[0]) / int(pair[1])


def _railway_disk(environ: Mapping[str, str], data_dir: Path) -> Disk:
    volume = environ.get("RAILWAY_VOLUME_MOUNT_PATH")
    return "persistent" if volume and data_dir.is_relative_to(volume) else "ephemeral"


def _mounted_disk(mount: Mount | None) -> Disk:
    lasts = mount is not None and mount.point != "/" and mount.fstype not in _IN_MEMORY | _CONTAINER_LAYER
    return "persistent" if lasts else "ephemeral"


def _plain_disk(mount: Mount | None) -> Disk:
    if mount is None or mount.fstype in _CONTAINER_LAYER:
        return "unknown"
    return "ephemeral" if mount.fstype in _IN_MEMORY else "persistent"


def _unescape(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
