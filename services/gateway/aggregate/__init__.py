"""`/mcp`: the tools, prompts and resources of every server that the caller may use, at one URL.

    names.py      public names: prefixed by server, stable, at most 64 characters, without collisions (pure)
    rewriting.py  names and URIs inside messages, from a server's own to public ones and back (pure)
    merging.py    one list of many servers' lists (pure)
    endpoint.py   the endpoint itself, over one governed endpoint for each server
    listening.py  its `subscriptions/listen`
    changes.py    waiting for the next change of what people may use

It decides nothing: each request goes on to one server (lists to all) by an endpoint that decides, journals
and records it there, under the server's own name.
"""
