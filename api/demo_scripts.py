"""What `make run` prints for AutoHotkey scripts: servers, access keys and public keys, as lines to paste at once."""

from __future__ import annotations

import json
from collections.abc import Callable

from api.config.settings import Settings

_LAST_PORT = 65_535
_GUIDE = """
These lines, pasted below PASTE HERE (COLE AQUI), make an example of clients/ahk ask this node.

For AutoHotkey 1.1 (SOLUCAO_COM_REDUNDANCIA.ahk, v1/Example.ahk):

g_LicenseAPI_Servers := []
g_LicenseAPI_Servers[1] := {first}
g_LicenseAPI_Servers[2] := {second}
g_LicenseAPI_ApiKey := {api_key}
g_LicenseAPI_SharedSecret := {shared_secret}
g_LicenseAPI_PublicKeys =
(
{public_keys}
)
"""
_V2 = """
For AutoHotkey v2 (v2/Example.ahk):

g_LicenseAPI_Servers := []
g_LicenseAPI_Servers.Push({first})
g_LicenseAPI_Servers.Push({second})
g_LicenseAPI_ApiKey := {api_key}
g_LicenseAPI_SharedSecret := {shared_secret}
g_LicenseAPI_PublicKeys := "
(
{public_keys}
)"
"""


def lines_to_paste(settings: Settings) -> str:
    """A block for each AutoHotkey version. It holds what every shipped script shows anyway: no license key, no token.

    The second server is the next port, where nothing answers until a second node is started there.
    """
    return _block(_GUIDE, settings, lambda text: text.replace('"', '""')) + _block(
        _V2, settings, lambda text: text.replace('"', '`"')
    )


def _block(template: str, settings: Settings, escaped: Callable[[str], str]) -> str:
    other_port = settings.port + 1 if settings.port < _LAST_PORT else settings.port - 1

    def quoted(text: str) -> str:
        return '"' + escaped(text.replace("`", "``")) + '"'

    return template.format(
        first=quoted(f"http://127.0.0.1:{settings.port}"),
        second=quoted(f"http://127.0.0.1:{other_port}"),
        api_key=quoted(settings.api_keys[0]),
        shared_secret=quoted(settings.shared_secrets[0]),
        public_keys="\n".join(json.dumps(key.public_jwk, separators=(",", ":")) for key in settings.signing_keys),
    )
