"""Looks for secrets where none may be: in what was sent, logged and stored, raw and in usual encodings."""

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SHORTEST = 12  # bytes of a secret; a shorter one would be found by chance

Haystack = tuple[str, bytes]  # where, and what is there


@dataclass(frozen=True)
class Leak:
    secret: str  # its name
    where: str
    spelling: str

    def __str__(self) -> str:
        return f"{self.secret} in {self.where}, {self.spelling}"


def search(secrets: Mapping[str, bytes], haystacks: Iterator[Haystack]) -> list[Leak]:
    """Every place where one of `secrets` stands, by any of its spellings."""
    needles = [(name, *spelled) for name, secret in secrets.items() for spelled in spellings(secret)]
    return [
        Leak(name, where, spelling)
        for where, content in haystacks
        for name, spelling, needle in needles
        if needle in content
    ]


def spellings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Each way in which `secret` may be written down, in whatever it stands, and what to look for then."""
    assert len(secret) >= SHORTEST, "too short to be searched for"
    text = secret.decode("latin-1")
    quoted = quote(secret, safe="")
    spelled = {
        secret: "raw",
        secret.hex().encode(): "hex",
        secret.hex().upper().encode(): "HEX",
        secret.hex(" ").encode(): "hex in pairs",
        quoted.encode(): "URL-encoded",
        quote(quoted, safe="").encode(): "URL-encoded twice",
        _lower_escapes(quoted).encode(): "URL-encoded in lower case",
        text.encode("utf-16-le"): "UTF-16",
        **{_escaped(text, times).encode(): f"JSON-escaped {times} times" for times in (1, 2, 3)},
        _escaped(text, 1).replace("/", r"\/").encode(): "JSON-escaped with slashes",
        repr(secret)[2:-1].encode(): "as Python shows bytes",
    }
    for shift in range(3):
        standard = _base64(secret, shift)
        spelled.setdefault(standard, f"Base64, shifted by {shift}")
        url_safe = standard.replace(b"+", b"-").replace(b"/", b"_")
        spelled.setdefault(url_safe, f"URL-safe Base64, shifted by {shift}")
    return ((spelling, needle) for needle, spelling in spelled.items())


def _base64(secret: bytes, shift: int) -> bytes:
    """The part of the Base64 of a text with `secret` in it that does not depend on what stands around it;
    `shift` is the number of bytes before it, modulo 3."""
    encoded = base64.b64encode(bytes(shift) + secret)
    return encoded[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6]


def _escaped(text: str, times: int) -> str:
    for _ in range(times):
        text = json.dumps(text)[1:-1]
    return text


def _lower_escapes(quoted: str) -> str:
    first, *rest = quoted.split("%")
    return first + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


# -- where to look ----------------------------------------------------------------------------------


def files(directory: Path) -> Iterator[Haystack]:
    """Every file below `directory`, as it is on disk."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield f"the file {path.relative_to(directory)}", path.read_bytes()


def databases(directory: Path) -> Iterator[Haystack]:
    """Every SQLite database below `directory` as SQL: in its file a long value is cut into pages."""
    for path in sorted(directory.rglob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            yield f"the database {path.name}", "\n".join(connection.iterdump()).encode()


# One process at a time may have such a directory open, and only once in its life.
_DUMP = """
import sys, clickhouse_connect
client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
query = "SELECT name FROM system.tables WHERE database = 'lockgate' AND engine NOT LIKE '%View'"
for (name,) in client.query(query).result_rows:
    sys.stdout.buffer.write(client.raw_query(f"SELECT * FROM lockgate.`{name}`", fmt="JSONEachRow"))
"""


def clickhouse(directory: Path) -> Haystack:
    """Every row of the tables of chDB in `directory`, whose files are compressed. Nobody may have it open."""
    done = subprocess.run([sys.executable, "-c", _DUMP, str(directory)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return "ClickHouse", done.stdout
