"""A small MCP server to try Lockgate with: a few everyday tools, one that is slow and one that fails.

    python -m examples.demo --port 9000

serves Streamable HTTP at http://127.0.0.1:9000/mcp, for clients of every protocol revision that the SDK
speaks. It knows nothing of Lockgate: any other MCP server takes its place in the same way.

tools.py       the tools; units.py what one of them converts
server.py      the server: tools, a resource and a prompt
__main__.py    the command
"""
