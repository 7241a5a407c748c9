"""The gateway: every MCP request passes here, is decided, forwarded and recorded.

    app.py          wiring; sends `/mcp` and below to the lane, the rest to Starlette
    lane.py         who may come in, whatever the lane
    doorway.py      the token of a request
    passage.py      one HTTP exchange in the transparent lane, from its body to its end
    bridge/         the bridged lane, on the clients' side
    links/          the bridged lane, on the upstreams' side
    eras/           between them: each era of the protocol made of the other
    aggregate/      every server at one URL
    learn.py        what servers offer, asked for administrators
    ticket.py       one request in any lane, from its decision to its record
    envelope.py     JSON-RPC envelope: just enough parsing to decide (pure)
    subjects.py     on what a request acts: tools, prompts, resources (pure)
    ladder.py       the decision, and every reason there is (pure)
    resources.py    which rule fits a resource, however its URI is spelled (pure)
    refusals.py     a refusal, and how it is sent
    headers.py      which headers cross (pure)
    sessions.py     session ids bound to their caller (pure)
    lists.py        what a caller may see of a list, and who may cache it (pure)
    listen.py       what the gateway itself says on an open stream
    sse.py          server-sent events, cut from a stream (pure)
    capture.py      what the record keeps of an answer (pure)
    relay.py        the answer on its way to the caller
    redaction.py    keeps an injected credential from coming back (pure)
    connection.py   one HTTP/1.1 connection, on asyncio.Protocol and httptools
    dialing.py      how connections are made: addresses, TLS
    breaker.py      what is known to be down is not tried with every call (pure)
    pool.py         the connections of each server
    upstream.py     the client: one request and its answer
    metadata.py     how a client finds its way in (pure)
    credentials.py  service credentials, opened in memory
    asgi.py         the ASGI interface, as far as the lane uses it
    running.py      calls in flight, and ending those that a change forbids

It owns nothing but its journal. All it decides on stands in memory, followed from the control log.
"""
