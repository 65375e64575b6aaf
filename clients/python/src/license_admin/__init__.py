"""What a vendor does with the license servers, over HTTPS: no shell on a host, no database, no signing key.

`license-admin --help`, or `python -m license_admin --help`. It needs the extra: pip install
"protecao-license-client[admin]".
"""

from license_client.version import __version__

__all__ = ["__version__"]
