"""Failover as this server uses it: one supervisor per node, and what it knows for all workers to say."""

from api.node.published import LedgerState, NodeState, Published

__all__ = ["LedgerState", "NodeState", "Published"]
