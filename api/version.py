"""The release this node runs, for heartbeats, `/stats`, the OpenAPI document and pyproject.toml."""

VERSION = "1.0.0"
