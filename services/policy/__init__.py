"""Policy: which servers there are, who may use what of them, and the switches.

definition.py what an administrator says about a server, and which values it may have
features.py   tools, prompts and resources, and what a group may use of them
domain.py     servers, groups, the organization's switch, and what a change did
names.py      names and texts that administrators give
store.py      every query; writes return what the change was
changes.py    commit, publish to the control log, record: the way every change goes
upstream.py   asks gateways what a server offers and which processes it has
api.py        JSON under /api/policy
console/      the pages /servers and /groups
"""
