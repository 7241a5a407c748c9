"""The nats-server child of a data directory."""

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from services.embedded import nats as embedded
from services.embedded.child import Child
from services.embedded.datadir import DataDirectory
from services.embedded.nats import Connection


@pytest.fixture
async def known(directory: DataDirectory) -> Connection:
    return await embedded.connection(directory)


@pytest.fixture
async def child(directory: DataDirectory, known: Connection) -> AsyncIterator[Child]:
    child = embedded.server(directory, known)
    await child.start()
    yield child
    await child.stop()


async def connect(known: Connection, **options: object) -> Client:
    credentials = {"user": known.user, "password": known.password, **options}
    return await nats.connect(known.url, max_reconnect_attempts=100, reconnect_time_wait=0.05, **credentials)


async def test_it_serves_jetstream_and_messages_of_eight_megabytes(child: Child, known: Connection) -> None:
    connection = await connect(known)
    try:
        assert connection.max_payload == 8 * 1024 * 1024
        bucket = await connection.jetstream().create_key_value(bucket="test")
        await bucket.put("key", b"value")
        assert (await bucket.get("key")).value == b"value"
    finally:
        await connection.close()


async def test_it_refuses_whoever_does_not_know_the_password(child: Child, known: Connection) -> None:
    client = Client()
    try:
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await client.connect(known.url, user=known.user, password="guess", allow_reconnect=False)
    finally:  # a failed connect leaves its transport open
        await client.close()
        await asyncio.sleep(0)  # uvloop frees the socket a turn after it is closed


async def test_it_listens_on_loopback_only(child: Child, known: Connection) -> None:
    assert known.url.startswith("nats://127.0.0.1:")
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", known.port))


async def test_it_comes_back_after_a_kill_with_what_was_stored(child: Child, known: Connection) -> None:
    connection = await connect(known)
    try:
        bucket = await connection.jetstream().create_key_value(bucket="test")
        await bucket.put("key", b"value")
        first = child.pid
        assert first
        os.kill(first, signal.SIGKILL)
        value = await _get_again(connection, "test", "key")
        assert value == b"value"
        assert child.pid != first
    finally:
        await connection.close()


async def _get_again(connection: Client, bucket: str, key: str) -> bytes | None:
    for _ in range(50):
        try:
            entry = await (await connection.jetstream(timeout=0.5).key_value(bucket)).get(key)
            value: bytes | None = entry.value
            return value
        except (nats.errors.Error, TimeoutError, OSError):
            continue
    raise AssertionError("it did not come back")


async def test_the_connection_is_private_and_the_same_at_the_next_start(
    directory: DataDirectory, known: Connection
) -> None:
    path = directory.path / "nats.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await embedded.connection(directory) == known


async def test_a_taken_port_is_replaced_and_the_rest_kept(
    directory: DataDirectory, known: Connection
) -> None:
    with socket.create_server(("127.0.0.1", known.port)):
        moved = await embedded.connection(directory)
    assert moved.port != known.port
    assert (moved.user, moved.password, moved.server_name) == (known.user, known.password, known.server_name)
    assert await embedded.connection(directory) == moved


async def test_a_server_of_somebody_else_on_the_port_is_not_taken_for_ours(
    child: Child, known: Connection
) -> None:
    stranger = Connection(known.url, known.user, known.password, "lockgate-of-somebody-else")
    assert await embedded._greets(known)
    assert not await embedded._greets(stranger)


@pytest.mark.parametrize(
    "greeting",
    [b'INFO {"server_name":"lock', b"INFO []\r\n", b"INFO \xff\r\n", b"x" * 100_000],
    ids=["cut off", "no object", "no text", "no end of line"],
)
async def test_a_greeting_that_cannot_be_read_is_no_answer(known: Connection, greeting: bytes) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", known.port):
        assert not await embedded._greets(known)


async def test_configuration_is_private_and_safe_in_a_path_with_spaces_and_quotes(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / 'my "data" {dir}') as directory:
        known = await embedded.connection(directory)
        child = embedded.server(directory, known)
        await child.start()
        await child.stop()
        assert stat.S_IMODE((directory.path / "nats.conf").stat().st_mode) == 0o600
        assert (directory.path / "nats").is_dir()
