"""The two eras of the protocol, each made of the other (MCP 2026-07-28, basic/versioning).

    translation.py         requests and results, from one era to the other (pure)
    discovery.py           `server/discover` and `initialize` (pure)
    subscriptions.py       changes of lists and resources (pure)
    inputs.py              what a server asks of a client, in both eras (pure)
    failures.py            errors, and their codes in both eras (pure)

    legacy_over_modern.py  a `Session` for a legacy client, on a modern `Endpoint`
    questions.py           what the upstream asks, put to the legacy client, and its answers
    listening.py           the session's `subscriptions/listen` stream, kept open

    modern_over_legacy.py  an `Endpoint` for modern clients, on legacy `Session`s
    session_pool.py        those sessions: opened on demand, shared, bounded, closed when idle
    legacy_session.py      one of them, from `initialize` to its end
    calls.py               a request that runs in one
    inquiries.py           what the server asks in one, and the call that may be asked
    hearing.py             who hears of changes in one
    held.py                calls that wait for input between two requests of a modern client

What has no counterpart in the other era: tasks (two different designs: an experimental part of 2025-11-25, an
extension of 2026-07-28), `notifications/roots/list_changed`, `notifications/elicitation/complete`, progress
that a client reports, and questions of a server outside of any request, but for `roots/list`.
"""
