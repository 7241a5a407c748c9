"""Quotas: how many calls of tools may be admitted in a minute and in a day of UTC. See docs/quotas.md.

    limits.py      which limits a call is counted against (pure)
    counter.py     what a replica knows of one count (pure)
    ledger.py      the counts of all replicas together, in NATS
    admission.py   counts a call, or refuses it
    report.py      how far the quotas of a call are used, for whoever asks over the bus

A call is counted when it is admitted, after the decision and before the journal: calls that were refused, and
what else a session says, count nothing.
"""
