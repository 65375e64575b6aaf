"""Where the command line takes its settings from: options, then the environment, then a TOML file."""

from __future__ import annotations

import json
import os
import tomllib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from license_client.client import LicenseClient
from license_client.errors import ConfigurationError
from license_client.fingerprint import machine_fingerprint

#: Read from the working directory where it is there and `--config` is not given.
DEFAULT_FILE = "license-client.toml"

#: Secrets belong here or in the file: every user of a machine sees the options of a running command.
ENVIRONMENT = {"key": "LICENSE_KEY", "api_key": "LICENSE_API_KEY", "shared_secret": "LICENSE_SHARED_SECRET"}

_LISTS = frozenset({"servers", "public_keys"})
_PATHS = frozenset({"state_dir", "floor_dir", "log_dir", "ca_bundle"})
_KNOWN = _LISTS | _PATHS | ENVIRONMENT.keys() | {"product", "fingerprint", "language"}


def client_of(options: Namespace, environment: Mapping[str, str] = os.environ) -> LicenseClient:
    """The client that the settings describe. Raises `ConfigurationError`."""
    settings = gathered(options, environment)
    for name in ("servers", "product", "key", "public_keys"):
        if not settings.get(name):
            raise ConfigurationError(f"{name}: is not set")
    settings["public_keys"] = [_public_key(given) for given in settings["public_keys"]]
    settings |= {name: Path(settings[name]) for name in _PATHS & settings.keys()}
    if options.no_fingerprint:
        settings.pop("fingerprint", None)
    elif "fingerprint" not in settings:
        settings["fingerprint"] = machine_fingerprint(settings["product"])
    return LicenseClient(**settings)


def gathered(options: Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """All settings by name; what is not set is not there. Paths in the file are taken from the file's folder."""
    settings = _from_file(options.config)
    settings |= {name: environment[variable] for name, variable in ENVIRONMENT.items() if environment.get(variable)}
    return settings | {name: value for name in _KNOWN if (value := getattr(options, name, None)) is not None}


def _from_file(given: Path | None) -> dict[str, Any]:
    path = given or Path(DEFAULT_FILE)
    if given is None and not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    for name, value in settings.items():
        if name not in _KNOWN:
            raise ConfigurationError(f"{path}: {name} is not a setting; there are {', '.join(sorted(_KNOWN))}")
        of_texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not (of_texts if name in _LISTS else isinstance(value, str)):
            raise ConfigurationError(f"{path}: {name} must be {'a list of texts' if name in _LISTS else 'a text'}")
        if name in _PATHS:
            settings[name] = str(path.parent / value)
        elif name == "public_keys":
            settings[name] = [each if _is_pem(each) else str(path.parent / each) for each in value]
    return settings


def _public_key(given: str) -> str | dict[str, Any]:
    """A PEM text as it is; anything else is a file that holds one, or a JWK or JWKS."""
    text = given
    if not _is_pem(given):
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"public_keys: {given} cannot be read: {error}") from error
    if _is_pem(text):
        return text
    try:
        jwks = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"public_keys: {given} holds neither PEM nor a JWKS") from None
    if not isinstance(jwks, dict):
        raise ConfigurationError(f"public_keys: {given} holds no key")
    return jwks


def _is_pem(text: str) -> bool:
    return "-----BEGIN " in text
