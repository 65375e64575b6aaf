"""License checks that survive their servers: ordered servers, signed verdicts, a saved token when none answers.

with LicenseClient(servers, product="my-product", key=key, public_keys=[pem]) as client:
    client.validate().require()
"""

from license_client.claims import LeaseClaims, VerdictClaims
from license_client.client import LicenseClient
from license_client.codes import Local
from license_client.errors import (
    ActivationNeeded,
    ConfigurationError,
    Denied,
    KeyMalformed,
    LicenseClientError,
    NoServer,
    NotLicensed,
    OfflineRefused,
    TokenInvalid,
    Undecided,
)
from license_client.fingerprint import machine_fingerprint
from license_client.license_key import looks_mistyped
from license_client.result import Attempt, Result
from license_client.transport import Reply, RequestsTransport, Transport, TransportFailed
from license_client.verify import Verifier
from license_client.version import __version__

__all__ = [
    "ActivationNeeded",
    "Attempt",
    "ConfigurationError",
    "Denied",
    "KeyMalformed",
    "LeaseClaims",
    "LicenseClient",
    "LicenseClientError",
    "Local",
    "NoServer",
    "NotLicensed",
    "OfflineRefused",
    "Reply",
    "RequestsTransport",
    "Result",
    "TokenInvalid",
    "Transport",
    "TransportFailed",
    "Undecided",
    "VerdictClaims",
    "Verifier",
    "__version__",
    "looks_mistyped",
    "machine_fingerprint",
]
