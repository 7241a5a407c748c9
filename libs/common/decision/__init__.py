"""What is decided on a call, and why: pure functions over the tables of the control log.

Gateways decide calls by it; policy explains and replays decisions by it. Both must come to the same verdict,
so it is shared (docs/adr/0006-one-ladder-for-deciding-and-explaining.md).

    ladder.py     the rungs in order, and every reason there is
    rules.py      which rules apply, in which order, and what they say
    conditions.py conditions in CEL, checked; syntax.py their words, zones.py their functions of time,
                  patterns.py what it costs to look for a pattern
    facts.py      what conditions see; arguments.py how much of it
    pins.py       the digest of a tool's definition
    subjects.py   on what a request acts: tools, prompts, resources
    resources.py  which name of a group's access fits a resource, however its URI is spelled
"""
