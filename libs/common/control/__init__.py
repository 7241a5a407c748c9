"""The control log: one ordered key-value bucket that holds everything a gateway needs to decide.

    entries.py    what the log says, one type per kind of key, and who may write it
    tables.py     the log as plain in-memory tables
    follower.py   reads the bucket, follows it in order, knows how far it is complete
    lease.py      a gateway replica's proof that its tables are fresh
    owner.py      a service's part of the log: write, wait for the receipt, reconcile

The correctness argument is in docs/adr/0001-lease-and-receipt.md.
"""
