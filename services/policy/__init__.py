"""Policy: which servers there are, who may use what of them, and the switches.

definition.py what an administrator says about a server, and which values it may have
features.py   tools, prompts and resources, and what a group may use of them
domain.py     servers, groups, members, the organization, and what a change did
switches.py   what is off, at which level, until when; timer.py ends it
departures.py forgets those whom auth has removed
pins.py       which definitions of tools are approved, and what waits; sights.py what a list does to that
differences.py two definitions side by side
relearning.py takes gateways' reports of lists, and asks servers again
names.py      names and texts that administrators give
store/        every query, one class per word; tables/ are its tables
changes.py    commit, publish to the control log, record: the way every change goes
upstream.py   asks gateways what a server offers and which processes it has
api/          JSON under /api/policy, one module per resource; views/ are its bodies and answers
console/      the pages /servers and /groups
"""
