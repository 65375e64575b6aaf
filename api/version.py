"""The release this node runs, as heartbeats, `/stats`, the OpenAPI document and pyproject.toml have it: the one place."""

VERSION = "1.0.0"
