"""One worker's share of a node: its connections, the key that it signs with, its polls of the ledger, its readiness."""
