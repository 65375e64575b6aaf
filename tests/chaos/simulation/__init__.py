"""A cluster in one process, in virtual time: nodes, ledger, network and clocks under a seeded scheduler.

What decides, queues, replays and merges is the product's own code: the supervisor and its elector, the recorder, the
cut-off lane, the queue and its replay, the merge, the watch over silences. The server, the network, the disk, the copy
of the ledger and its follower are models. `python -m tests.chaos --steps 1000000 --seed N` plays a million steps.
"""
