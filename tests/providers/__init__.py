"""An OAuth provider and an MCP server that trusts it, each a real process which a test can make misbehave."""
