"""The release this node runs, as heartbeats, `/stats` and the OpenAPI document say it."""

VERSION = "1.0.0"
