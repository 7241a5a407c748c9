"""A real `lockgate up`: what it prints, how it stops, what it leaves behind and what it finds again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

LOCKGATE = Path(sys.executable).with_name("lockgate")
START_WITHIN = 60.0  # seconds; five services on a busy machine
STOP_WITHIN = 20.0


@dataclass
class Instance:
    """A running `lockgate up`, and what it has printed."""

    process: "subprocess.Popen[str]"
    data: Path
    output: str
    errors: Path

    @property
    def url(self) -> str:
        found = re.search(r"^Console: +(\S+)/$", self.output, re.M)
        assert found
        return found[1]

    def children(self) -> list[int]:
        return [int((self.data / f"{name}.lock").read_text()) for name in ("nats", "demo")]

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_WITHIN)


@contextmanager
def up(data: Path, *, variables: dict[str, str] | None = None) -> Iterator[Instance]:
    """Start one on `data` and a port of the system's choice; kill it in the end if it still runs."""
    errors = data.with_name("errors")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    command = [str(LOCKGATE), "up", "--data", str(data), "--port", "0"]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, env=clean | (variables or {}), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdout
        try:
            deadline, output = time.monotonic() + START_WITHIN, ""
            while not output.endswith("Ctrl-C stops everything.\n"):
                assert time.monotonic() < deadline and process.poll() is None, errors.read_text()
                output += process.stdout.readline()
            yield Instance(process, data, output, errors)
        finally:
            process.kill()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(map(alive, pids)):
            await asyncio.sleep(0.02)


@pytest.mark.timeout(240)
async def test_it_starts_stops_and_starts_again_with_what_it_had(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    with up(data) as first:
        password = re.search(r"^  Password: (\S+)$", first.output, re.M)
        assert password
        assert httpx2.get(f"{first.url}/readyz").json()["status"] == "ready"
        assert httpx2.get(f"{first.url}/login").status_code == 200
        answer = httpx2.get(f"{first.url}/mcp/demo")
        assert answer.status_code == 401
        assert "resource_metadata=" in answer.headers["www-authenticate"]
        configuration = json.loads(first.output[first.output.index("{") : first.output.rindex("}") + 1])
        assert configuration["mcpServers"]["lockgate-demo"]["url"] == f"{first.url}/mcp/demo"
        bus = (data / "nats.json").read_text()
        children = first.children()
        assert all(map(alive, children))
        assert first.stop(signal.SIGINT) == 0
        assert not any(map(alive, children))
        assert first.errors.read_text() == ""
    assert [entry for entry in data.iterdir() if entry.stat().st_mode & 0o077] == []

    with up(data) as second:
        assert "Password" not in second.output
        assert (data / "nats.json").read_text() == bus
        session = httpx2.post(
            f"{second.url}/login",
            data={"email": "admin@example.com", "password": password[1], "next": "/servers"},
            headers={"Origin": second.url, "Sec-Fetch-Site": "same-origin"},
        )
        assert (session.status_code, session.headers["location"]) == (303, "/servers")
        assert second.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_nothing_is_left_after_a_kill_and_the_next_start_works(tmp_path: Path) -> None:
    with up(tmp_path / "data") as first:
        children = first.children()
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        await gone(children)
    with up(tmp_path / "data") as second:
        assert httpx2.get(f"{second.url}/readyz").status_code == 200
        assert second.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(240)
async def test_an_open_stream_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    with up(tmp_path / "data") as instance:
        host, port = instance.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nnever ends")
        await writer.drain()
        assert instance.stop(signal.SIGTERM) == 0
        writer.close()


@pytest.mark.timeout(240)
async def test_limits_are_for_each_client_behind_a_trusted_proxy(tmp_path: Path) -> None:
    variables = {
        "LOCKGATE_TRUSTED_PROXIES": "127.0.0.1",
        "LOCKGATE_AUTH_ADMIN_PASSWORD": "correct horse battery",
    }

    def sign_in(client: str, password: str) -> int:
        return httpx2.post(
            f"{instance.url}/login",
            data={"email": "admin@example.com", "password": password},
            headers={"Origin": instance.url, "X-Forwarded-For": client},
        ).status_code

    with up(tmp_path / "data", variables=variables) as instance:
        guesses = [sign_in("203.0.113.1", "wrong") for _ in range(9)]
        assert guesses == [401] * 8 + [429]
        assert sign_in("203.0.113.2", "correct horse battery") == 303
        assert instance.stop(signal.SIGTERM) == 0
