"""An MCP server that only writes down its calls: `python -m tests.faults.upstream PORT FILE`.

A line in FILE is the number of a call, and when its request was there as a whole, by `elapsed()`. That clock
is the machine's, so its times can be compared with those of other processes. The line is written before the
answer.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from libs.common.clock import elapsed

TOOLS = ("read", "write")


def answer(message: dict[str, Any]) -> dict[str, Any]:
    match message.get("method"):
        case "initialize":
            capabilities: dict[str, Any] = {"tools": {}}
            info = {"name": "upstream", "version": "1"}
            version = message["params"]["protocolVersion"]
            return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
        case "tools/call":
            return {"content": [{"type": "text", "text": "done"}]}
    return {}


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1: requests with a Content-Length, one after the other."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._buffer = file, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while request := self._next():
            self._handle(request)

    def _next(self) -> bytes | None:
        """The body of the next request, once it is there."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = [line.partition(b":") for line in head.lower().splitlines()]
        length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return rest[:length] or b"{}"

    def _handle(self, body: bytes) -> None:
        assert self._transport
        message = json.loads(body)
        if message.get("method") == "tools/call":
            self._file.write(f"{message['params']['arguments']['number']} {elapsed()}\n")
            self._file.flush()
        if "id" not in message:
            self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return
        reply = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n\r\n"
        self._transport.write(head.encode() + reply)


async def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    with path.open("a") as file:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(file), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
