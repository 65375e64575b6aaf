"""A name for this machine that a new network card, a new user or a reinstalled program does not change."""

from __future__ import annotations

import plistlib
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from license_client.errors import ConfigurationError

_LINUX_PLACES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def machine_fingerprint(salt: str = "") -> str:
    """64 hexadecimal digits: a hash of the system's own id of this installation, and of `salt`.

    Windows: MachineGuid; Linux: /etc/machine-id; macOS: IOPlatformUUID. Give your product as `salt`, so that two
    vendors cannot compare their customers. Raises `ConfigurationError` where the system has no such id (a bare
    container): pass a fingerprint of your own there.
    """
    found = _system_id()
    if not found:
        raise ConfigurationError("fingerprint: this system has no id of its own; pass one")
    return sha256(f"{salt}\n{found.lower()}".encode()).hexdigest()


def _system_id() -> str:
    if sys.platform == "win32":
        return _windows()
    if sys.platform == "darwin":
        return _macos()
    return next((text for place in _LINUX_PLACES if (text := _text_in(Path(place)))), "")


def _text_in(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


if sys.platform == "win32":
    import winreg

    def _windows() -> str:
        path, view = r"SOFTWARE\Microsoft\Cryptography", winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, view) as opened:
                return str(winreg.QueryValueEx(opened, "MachineGuid")[0])
        except OSError:
            return ""


def _macos() -> str:
    command = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice", "-a"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=10, check=True)  # noqa: S603 (a fixed command)
        listed = plistlib.loads(said.stdout)
        return str(listed[0]["IOPlatformUUID"])
    except (OSError, subprocess.SubprocessError, plistlib.InvalidFileException, LookupError, ValueError):
        return ""
