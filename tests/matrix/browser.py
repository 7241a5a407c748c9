"""For clients that send a person to a browser: the URL is taken from what they print."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

import httpx2

from tests.e2e.conftest import Browser

_AUTHORIZE = re.compile(r"http://\S+/oauth/authorize\?\S+")
CALLBACK_WITHIN = 10.0  # seconds


async def allow(browser: Browser, url: str) -> None:
    """Allow what `url` asks for, and follow the way back to the client, which may not listen there yet."""
    location = await browser.authorize(url)
    async with asyncio.timeout(CALLBACK_WITHIN), httpx2.AsyncClient() as http:
        while True:
            try:
                answer = await http.get(location)
                break
            except httpx2.ConnectError:
                await asyncio.sleep(0.05)
    assert answer.status_code < 400, answer.text


async def watch(lines: asyncio.StreamReader, browser: Browser) -> str:
    """Allow each authorization URL in `lines`, once. Returns everything that was printed."""
    printed, opened = "", set()
    async for line in lines:
        printed += line.decode(errors="replace")
        if (url := _AUTHORIZE.search(line.decode(errors="replace"))) and url[0] not in opened:
            opened.add(url[0])
            await allow(browser, url[0])
    return printed


@asynccontextmanager
async def watched_errors(browser: Browser) -> AsyncIterator[TextIO]:
    """A file for the standard error of a client, with somebody watching what it says."""
    reading, writing = os.pipe()
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(reading, "rb", 0)
    )
    try:
        async with asyncio.TaskGroup() as watching:
            watching.create_task(watch(lines, browser))
            with os.fdopen(writing, "w") as file:
                yield file
    finally:
        transport.close()
