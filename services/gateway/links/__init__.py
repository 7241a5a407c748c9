"""Raw connections to upstreams, for the bridged lane. No governance here: who uses them decides and records.

    port.py             the two kinds: Session (revisions up to 2025-11-25) and Endpoint (from 2026-07-28)

Over HTTP:

    route.py            the way to an upstream: where, with which credential, how patiently
    sse.py              Session over HTTP+SSE (2024-11-05)
    http.py             Session over Streamable HTTP (2025-03-26 to 2025-11-25)
    modern.py           Endpoint over Streamable HTTP (2026-07-28)
    parameters.py       the headers that mirror a tool's parameters there (pure)
    events.py           messages out of event streams and bodies
    spoken_eras.py      which eras an upstream speaks: learned in passing, or by asking

Over the standard streams of child processes:

    processes.py        the processes of this replica: started on demand, ended with their last user
    instance.py         one of them, through every restart
    backoff.py          how long a program that ended by itself is left alone
    process.py          a program that runs, bounded in all that it may use of us
    supervisor.py       what starts it, limits it, and ends it with all its descendants
    tail.py             the last lines of its standard error
    stdio.py            messages over its streams
    handshake.py        which era it speaks
    sharing.py          many sessions over one process of a legacy revision
    shared_session.py   one of those sessions
    shared_endpoint.py  many callers over one process of the modern revision
    tasks.py            whose a task is, where several people share a process (pure)
    renaming.py         what names a request beside its id, where several callers share a pipe (pure)
"""
