"""How to give a server's URL to the clients that people use, ready to paste."""

import json
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Snippet:
    """What to paste into one client: `text` goes `where`, `then` says what follows."""

    client: str
    where: str
    text: str
    then: str


def snippets(name: str, url: str) -> list[Snippet]:
    """Set-up for the server `name` at `url` (its URL at Lockgate). Each client signs in by itself."""
    bridge = ["-y", "mcp-remote", url]
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in {"localhost", "127.0.0.1"}:
        bridge.append("--allow-http")
    return [
        Snippet(
            "Cursor",
            "~/.cursor/mcp.json, or .cursor/mcp.json in a project",
            _json({"mcpServers": {name: {"url": url}}}),
            "Save the file; Cursor shows “Needs login” at the server and opens the browser.",
        ),
        Snippet(
            "Claude Desktop",
            "claude_desktop_config.json (Settings → Developer → Edit Config)",
            _json({"mcpServers": {name: {"command": "npx", "args": bridge}}}),
            "Restart Claude Desktop. If this address can be reached from the internet, Settings → Connectors "
            "→ Add custom connector with the URL alone does the same.",
        ),
        Snippet(
            "Claude Code",
            "a terminal",
            f"claude mcp add --transport http {name} {url}",
            f"Then sign in: claude mcp login {name}, or inside Claude Code /mcp and Authenticate.",
        ),
        Snippet(
            "Codex",
            "a terminal",
            f"codex mcp add {name} --url {url}",
            f"It opens the browser for signing in; if that was cancelled: codex mcp login {name}. "
            f'The same by hand: [mcp_servers.{name}] with url = "{url}" in ~/.codex/config.toml.',
        ),
    ]


def _json(value: object) -> str:
    return json.dumps(value, indent=2)
