"""Policy: which servers there are, who may use what of them, and the switches.

domain.py    what a server, a group and the organization's switch are, and their rules
store.py     every query; writes return what the change was
changes.py   commit, publish to the control log, record: the way every change goes
upstream.py  asks a server for its tools
api.py       JSON under /api/policy
console/     the pages /servers and /groups
"""
