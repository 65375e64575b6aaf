"""Real nodes, a real Postgres and real TCP between them, while everything that can break is broken.

`python -m tests.chaos.cluster [--short]`. Clients walk the list of nodes all the while; what they were answered and
what the ledger has in the end are held against each other.
"""
