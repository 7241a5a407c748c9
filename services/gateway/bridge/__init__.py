"""The client's side of the bridged lane: fronts for every transport, and the governance of what passes.

    wiring.py        the parts at one replica, put together
    gate.py          which requests are for this lane, and which replica has to answer them
    fronts.py        from an exchange to the session or request that it is about
    exchange.py      one HTTP exchange as the fronts see it, here or relayed
    sse_front.py     HTTP+SSE of 2024-11-05
    http_front.py    Streamable HTTP with sessions, 2025-03-26 to 2025-11-25
    modern_front.py  Streamable HTTP without sessions, 2026-07-28
    streams.py       events on their way to a client: bounded, resumable
    host.py          the sessions of this replica: made, ended, limited
    register.py      them by id, and ids that are good for one caller only
    conversations.py a session with one server, and each message in it: decided, journaled, recorded
    onward.py        a session with the gateway as a whole
    governed.py      single requests, and an `Endpoint` of them: decided, journaled, recorded
    upstreams.py     from a server's entry to its connection: `Session` or `Endpoint`
    openers.py       what opens sessions with upstreams
    relaying.py      exchanges that belong to another replica, over NATS

The seam for what is made of several servers (services.gateway.aggregate):

    Governor.endpoint_for(caller: Caller, server: str) -> Endpoint      (governed.py)

gives an `Endpoint` (links/port.py) for one server. Each `request` is parsed strictly, decided by the ladder,
journaled, recorded under that server's name, its lists filtered; a refusal or a failure of the upstream
comes back as a JSON-RPC error response, never as `UpstreamFailed`. It connects when first asked, costs
nothing to make, and `close` does nothing: connections are held and let go by the replica. The caller's
`check` counts too.

In the other direction the fronts serve any `Endpoint`: `Bridge(..., whole=...)` takes what makes one for a
caller (`Whole`, host.py) and serves it at `/mcp` (to modern clients as it is, to older ones by
`eras.LegacyOverModern`) and at `/mcp/sse`. Such an exchange has a valid token, a lease, a standing user and
the organization switched on, and is no call of its own in the records.
"""
