"""The ledger: the shared database that all nodes agree through, behind one seam (`store.Ledger`)."""
