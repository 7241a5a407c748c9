"""A desktop for clients that run on one: a home directory, and a browser in which a person is signed in."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Person
from tests.matrix.browser import watch
from tests.npm import Packages


@dataclass(frozen=True)
class Desktop:
    """`home` holds what a client keeps between two runs, and the program that opens the browser."""

    home: Path
    person: Person

    def environment(self, packages: Packages | None = None, **values: str) -> dict[str, str]:
        """What a client starts with."""
        present = packages.environment() if packages else {**os.environ}
        opener, path = self.home / "xdg-open", present.get("PATH", "")
        found = {"HOME": str(self.home), "PATH": f"{self.home}:{path}", "BROWSER": str(opener)}
        return present | {"DISPLAY": "", "WAYLAND_DISPLAY": ""} | found | values


@asynccontextmanager
async def desktop(home: Path, person: Person) -> AsyncIterator[Desktop]:
    """Where a client opens a URL, `person` allows what it asks for."""
    pipe, opener = home / "opened", home / "xdg-open"
    os.mkfifo(pipe)
    opener.write_text(f'#!/bin/sh\necho "$1" > "{pipe}"\n')
    opener.chmod(0o755)
    # For writing too: a pipe without writers would be at its end.
    transport, lines = await _reader(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    watching = asyncio.create_task(watch(lines, person.browser))
    try:
        yield Desktop(home, person)
        assert not watching.done() or watching.result()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        transport.close()


async def _reader(descriptor: int) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(descriptor, "rb", 0)
    )
    return transport, lines
