"""The gateway: every MCP request passes here, is decided, forwarded and recorded.

    app.py          wiring; sends `/mcp/{server}` to the lane and the rest to Starlette
    lane.py         the transparent lane: who may come in
    doorway.py      the token of a request
    passage.py      one HTTP exchange in it, from its body to its end
    ticket.py       one request in any lane, from its decision to its record
    envelope.py     JSON-RPC envelope: just enough parsing to decide (pure)
    ladder.py       the decision, and every reason there is (pure)
    refusals.py     a refusal, and how it is sent
    headers.py      which headers cross (pure)
    sessions.py     session ids bound to their caller (pure)
    lists.py        what a caller may see of a list result (pure)
    sse.py          server-sent events, cut from a stream (pure)
    capture.py      what the record keeps of an answer (pure)
    relay.py        the answer on its way to the caller
    redaction.py    keeps an injected credential from coming back (pure)
    connection.py   one HTTP/1.1 connection, on asyncio.Protocol and httptools
    upstream.py     the client: exchanges and pools
    metadata.py     how a client finds its way in (pure)
    credentials.py  service credentials, opened in memory
    asgi.py         the ASGI interface, as far as the lane uses it
    running.py      calls in flight, and ending those that a change forbids

It owns nothing but its journal. All it decides on stands in memory, followed from the control log.
"""
