"""ASGI apps served on a port by the test's own loop."""

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from typing import Any

import uvicorn

from tests.conftest import eventually

# For a client of these servers; others first read the certificates of all authorities, for as long as a test.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANSWERS_WITHIN = 1  # seconds that requests have when the server stops; then they are cancelled


class Server(uvicorn.Server):
    """Stops as soon as it is told to and nothing is left to do: uvicorn's own looks every 0.1 s for both, and
    tests stop some thousand of them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def stop(self) -> None:
        self._told.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # which sets the headers that every answer has
        await self._told.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


async def serve(app: Any, port: int, stack: AsyncExitStack, **options: Any) -> None:
    """Serve `app` on a port of 127.0.0.1 until `stack` is left; `options` are uvicorn's."""
    given: dict[str, Any] = {"log_level": "error", "timeout_graceful_shutdown": ANSWERS_WITHIN} | options
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=port, **given))
    task = asyncio.create_task(server.serve())

    async def stop() -> None:
        server.stop()
        await task

    stack.push_async_callback(stop)
    await eventually(lambda: server.started or task.done())
