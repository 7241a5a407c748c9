"""The demo server child (examples/demo), which gives the first start something to call."""

import asyncio
import sys
from dataclasses import dataclass

from services.embedded.child import Child, Program, end_orphan
from services.embedded.datadir import DataDirectory, write_private
from services.embedded.nats import HOST, free_port, is_free

NAME = "demo"
PORT_FILE = "demo.port"


@dataclass(frozen=True, slots=True)
class Demo:
    """The child, not yet started, and the URL of its endpoint."""

    child: Child
    url: str


async def server(directory: DataDirectory) -> Demo:
    """The demo server on the port of last time, or on another if that is taken now."""
    await end_orphan(directory.path, NAME)
    port = int(directory.remembered(PORT_FILE, lambda: str(free_port())))
    if not is_free(port):
        port = free_port()
        write_private(directory.path / PORT_FILE, str(port))

    async def ready() -> bool:
        try:
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection(HOST, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    # -P: an `examples` folder in the directory where the command was called is not ours.
    command = [sys.executable, "-P", "-m", "examples.demo", "--host", HOST, "--port", str(port)]
    return Demo(Child(Program(NAME, command, directory.path, ready)), f"http://{HOST}:{port}/mcp")
