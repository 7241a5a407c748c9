"""The HTTP server: whose word it takes for where a request comes from."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from libs.common.settings import Settings
from services.embedded.server import Server, listen, serve_alone


async def tell_address(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with the address it was called from."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["client"][0].encode()})


def settings(proxies: str, tmp_path: Path) -> Settings:
    return Settings(trusted_proxies=proxies, data_dir=tmp_path)


@contextlib.asynccontextmanager
async def serving(proxies: str, tmp_path: Path, host: str = "127.0.0.1") -> AsyncIterator[str]:
    server = Server(tell_address, settings(proxies, tmp_path))
    with contextlib.closing(listen(host, 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def address_seen(url: str, forwarded: str) -> str:
    async with httpx2.AsyncClient() as http:
        return (await http.get(url, headers={"X-Forwarded-For": forwarded})).text


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ("", "203.0.113.7", "127.0.0.1"),
        ("10.0.0.0/8", "203.0.113.7", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.0/8, 127.0.0.0/8", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "198.51.100.66, 203.0.113.7", "203.0.113.7"),  # the first is the client's own claim
        ("127.0.0.1,10.0.0.0/8", "203.0.113.7, 10.1.2.3", "203.0.113.7"),
    ],
)
async def test_only_trusted_proxies_say_where_a_request_comes_from(
    proxies: str, forwarded: str, seen: str, tmp_path: Path
) -> None:
    async with serving(proxies, tmp_path) as url:
        assert await address_seen(url, forwarded) == seen


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
async def test_a_proxy_is_known_by_its_ipv4_address_on_a_socket_for_both(tmp_path: Path) -> None:
    async with serving("127.0.0.1", tmp_path, "::") as url:
        assert await address_seen(url, "203.0.113.7") == "203.0.113.7"


async def test_the_environment_of_uvicorn_makes_nobody_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with serving("", tmp_path) as url:
        assert await address_seen(url, "203.0.113.7") == "127.0.0.1"


async def test_a_service_alone_takes_its_trusted_proxies_from_its_settings(tmp_path: Path) -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    task = asyncio.create_task(
        serve_alone(
            "echo", lambda: tell_address, settings("127.0.0.1", tmp_path), partial(listen, "127.0.0.1", port)
        )
    )
    async with asyncio.timeout(10):
        while not await accepts(port):
            assert not task.done()
    assert await address_seen(f"http://127.0.0.1:{port}", "203.0.113.7") == "203.0.113.7"
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await task


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1;10.0.0.2"])
def test_what_is_no_address_or_network_is_no_trusted_proxy(wrong: str) -> None:
    with pytest.raises(ValidationError, match="must be addresses or networks such as"):
        Settings(trusted_proxies=wrong)


def test_trusted_proxies_may_be_written_with_spaces_and_empty_places() -> None:
    assert Settings(trusted_proxies=" 10.0.0.1, ,2001:db8::/32 ").trusted_proxies == "10.0.0.1,2001:db8::/32"
