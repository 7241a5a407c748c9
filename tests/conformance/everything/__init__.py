"""The upstream that the official conformance suite expects: `python -m tests.conformance.everything PORT`.

    content.py     tools and prompts that answer with each kind of content
    asking.py      tools that ask the client back while they run (revisions up to 2025-11-25)
    rounds.py      tools and a prompt that need further rounds (revision 2026-07-28)
    streams.py     tools about streams, notifications and headers; resumable streams
    __main__.py    the server: all of these and the resources, on both eras of Streamable HTTP

Names and texts are the suite's: its scenarios look for them.
"""
