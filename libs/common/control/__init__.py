"""The control log: one ordered key-value bucket that holds everything a gateway needs to decide.

    entries.py    what the log says, one type per kind of key, and who may write it
    tables.py     the log as plain in-memory tables
    progress.py   how far the log is applied, when what is delivered has holes
    follower.py   reads the bucket, and follows it in order
    lease.py      a gateway replica's proof that its tables are fresh
    owner.py      a service's part of the log: write, wait for the receipt, reconcile
    changes.py    how a change of an administrator goes: commit, publish, record

The correctness argument is in docs/adr/0001-lease-and-receipt.md.
"""
