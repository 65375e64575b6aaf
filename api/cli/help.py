"""What each field and each filter means, in the words of `--help`."""

from __future__ import annotations

FIELDS = {
    "code": "What clients send to name the product: letters, digits, . _ -",
    "name": "What people call it",
    "product": "The product's code, id or name",
    "policy": "The policy's id or name; product/name where several products have one of that name",
    "duration_days": "How many days a license lasts; without, for ever",
    "expiry_basis": "When that time begins",
    "expiry_strategy": "At its end: restrict denies at once, maintain stays valid for the days of grace",
    "grace_days": "Days after the expiry in which a license stays valid, with --expiry-strategy maintain",
    "max_machines": "How many machines may hold a seat at once",
    "floating": "Whether any machine may take a free seat; otherwise the license is locked to its machines",
    "require_fingerprint": "Whether a check has to name the machine that asks",
    "overage": "How far beyond its seats a license may go: 1.25x, 1.5x, 2x, always, or not at all",
    "machine_heartbeat_s": "Seconds within which each machine has to send a ping to count as alive",
    "cull": "What becomes of a machine that stopped sending pings: deactivate frees its seat",
    "check_in_days": "Days within which the license has to check in",
    "max_uses": "How many uses the license has in all",
    "entitlements": "A name that programs ask for, like a feature",
    "versions": "The versions that are covered, as PEP 440 specifiers like >=1,<3",
    "offline_ttl_s": "Seconds for which a program runs on without a server; without, not at all",
    "isolated_activation": "Whether a node that has lost its ledger may activate machines",
    "moves_per_30d": "How many new machines a license may bring in 30 days beyond its seats",
    "release_stale_days": "With all seats taken, a new machine gets that of one unseen for so many days",
    "email": "The customer's e-mail address",
    "expires_at": "When the license ends",
    "metadata": "What else is kept with the license",
    "external_ref": "Your own number for it, an order's for instance; no two licenses have the same",
    "key": "A key of your own in place of a new one; of 8 to 128 characters",
    "days": "How many days to add; without, as many as the policy gives",
}

FILTERS = {
    "product": "Only of this product: its code",
    "policy": "Only under this policy: its id or name",
    "status": "Only these: active, suspended, banned or expired",
    "email": "Only with this e-mail address, in capitals or not",
    "key_hint": "Only those whose key ends in these four characters",
    "external_ref": "Only the one with this number of yours",
    "q": "Search: each term begins a word of the name (of a license its e-mail address, reference or hint too), "
    "whatever case and accents; or a license's whole key",
    "license": "Only of this license: its id, name, e-mail address, hint or key",
    "type": "Only events of this type, like license.renewed",
    "node": "Only events of this node: its id",
    "since": "Only from this time on: RFC 3339, or Unix seconds",
    "until": "Only before this time: RFC 3339, or Unix seconds",
}
