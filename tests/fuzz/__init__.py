"""Generated calls at a running node, from its own OpenAPI document; and connections with requests as bytes."""
