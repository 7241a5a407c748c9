"""The gateway: every MCP request passes here, is decided, forwarded and recorded.

    app.py             wiring; sends `/mcp` and below to the ingress, the rest to Starlette
    ingress.py         where MCP requests come in; who may not is turned away
    authentication.py  the token of a request
    metadata.py        how a client finds its way in (pure)
    asgi.py            the ASGI interface, as far as requests for MCP use it

    ticket.py          one request in any lane, from its decision to its record
    running.py         calls in flight, and ending those that a change forbids
    review.py          when what is in use is held against the control log again (pure)
    capture.py         what the record keeps of an answer (pure)
    credentials.py     service credentials, opened in memory
    listen.py          what the gateway itself says on an open stream

    envelope.py        JSON-RPC envelope: just enough parsing to decide (pure)
    refusals.py        a refusal, and how it is sent
    lists.py           what a caller may see of a list, and who may cache it (pure)
    decoding.py        JSON that readers could understand in two ways (pure)
    pins/              tools as upstreams show them, held against what was approved

    passage.py         one HTTP request: read, and answered by the transparent lane unless diverted
    headers.py         which headers cross (pure)
    sessions.py        session ids bound to their caller (pure)
    downstream.py      the answer on its way to the caller

    bridge/            the bridged lane, on the clients' side
    eras/              between the sides: each era of the protocol made of the other
    links/             the bridged lane, on the upstreams' side
    aggregate/         every server at one URL
    learn.py           what servers offer, asked for administrators

    protocol.py        what the specification fixes: revisions, names, codes
    messages.py        JSON-RPC messages as raw JSON (pure)
    sse.py             server-sent events (pure)

    upstream.py        the HTTP client: one request and its answer
    pool.py            the connections of each server
    breaker.py         what is known to be down is not tried with every call (pure)
    dialing.py         how connections are made: addresses, TLS
    connection.py      one HTTP/1.1 connection, on asyncio.Protocol and httptools
    redaction.py       keeps an injected credential from coming back (pure)

It owns nothing but its journal. All it decides on stands in memory, followed from the control log.
"""
