"""The gateway: every MCP request passes here, is decided, forwarded and recorded.

    app.py          wiring; sends `/mcp/{server}` to the lane and the rest to Starlette
    lane.py         the transparent lane: one HTTP exchange from first header to record
    envelope.py     JSON-RPC envelope: just enough parsing to decide (pure)
    ladder.py       the decision, and every reason there is (pure)
    refusals.py     a refusal as an HTTP answer (pure)
    sessions.py     session ids bound to their caller (pure)
    lists.py        what a caller may see of a list result (pure)
    sse.py          server-sent events, cut from a stream (pure)
    capture.py      what the record keeps of an answer (pure)
    upstream.py     HTTP/1.1 client on asyncio.Protocol and httptools
    credentials.py  service credentials, opened in memory
    running.py      calls in flight, and ending those that a change forbids

It owns nothing but its journal. All it decides on stands in memory, followed from the control log.
"""
