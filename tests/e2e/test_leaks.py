"""The search for secrets can fail: what is planted is found, by any spelling and in every place."""

import base64
import json
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import nats as client_of_nats
import pytest
from nats.js.api import StreamConfig
from pydantic import SecretStr

from libs.common.settings import load
from services.embedded.catalog import NAMES, Name, settings_class
from tests.conftest import Nats
from tests.e2e.capture import Capture
from tests.e2e.leaks import Haystack, clickhouse, databases, files, search

SECRET = b'a "secret"/with\\ +&% \xe9t\xe9 and 0123456789'


def found(*haystacks: Haystack, secret: bytes = SECRET) -> set[str]:
    """The places in which it is found."""
    return {leak.where for leak in search({"secret": secret}, iter(haystacks))}


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda text: text,
    "hex": lambda text: text.hex().encode(),
    "HEX": lambda text: text.hex().upper().encode(),
    "URL": lambda text: quote(text, safe="").encode(),
    "URL twice": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "JSON": lambda text: json.dumps({"key": text.decode("latin-1")}).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps([text.decode("latin-1")])).encode(),
    "Python": lambda text: repr(text).encode(),
    **{
        f"Base64 with {more} bytes before it": lambda text, more=more: base64.b64encode(b"x" * more + text)  # type: ignore[misc]
        for more in range(6)
    },
    **{
        f"URL-safe Base64 with {more} bytes before it": lambda text, more=more: base64.urlsafe_b64encode(  # type: ignore[misc]
            b"?" * more + text + b"behind it"
        )
        for more in range(6)
    },
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize(
    "secret",
    [SECRET, secrets.token_bytes(32), secrets.token_urlsafe(24).encode()],
    ids=["signs", "bytes", "token"],
)
def test_a_secret_is_found_however_it_is_written(how: str, secret: bytes) -> None:
    written = b"before " + WRITTEN[how](secret) + b" behind"
    assert found(("there", written), secret=secret) == {"there"}


def test_what_is_not_there_is_not_found() -> None:
    other = secrets.token_bytes(32)
    assert found(*(("there", write(other)) for write in WRITTEN.values())) == set()


async def test_it_is_found_in_what_is_sent_over_nats_and_in_its_files(nats: Nats) -> None:
    capture = Capture(nats.port)
    await capture.start()
    client = await client_of_nats.connect(capture.url)
    await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
    await client.jetstream().publish("kept", b"before " + SECRET)
    await client.close()
    await capture.stop()
    nats.stop()
    (place,) = found(*capture.heard())
    assert place.startswith("what was sent to NATS")
    (file,) = found(*files(nats.directory))
    assert file.startswith("the file jetstream/")


def test_it_is_found_in_logs_and_journals(tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_bytes(b'{"event": "x"}\n' + SECRET)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0001").write_bytes(b"A 1 " + WRITTEN["JSON"](SECRET))
    assert found(*files(tmp_path)) == {"the file gateway.log", "the file journal/0001"}


def test_it_is_found_in_a_database_also_where_a_page_ends(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "vault.db")) as connection, connection:
        connection.execute("CREATE TABLE rows (value TEXT)")
        for before in range(3000, 5000, 20):
            value = "x" * before + SECRET.decode("latin-1")
            connection.execute("INSERT INTO rows VALUES (?)", (value,))
    assert found(*databases(tmp_path), secret=SECRET.decode("latin-1").encode()) == {"the database vault.db"}


def test_it_is_found_in_clickhouse(tmp_path: Path) -> None:
    planting = (
        "import sys, clickhouse_connect\n"
        "client = clickhouse_connect.get_client(interface='chdb', path=sys.argv[1])\n"
        "client.command('CREATE DATABASE lockgate')\n"
        "client.command('CREATE TABLE lockgate.calls (input String) ENGINE = MergeTree ORDER BY input')\n"
        "client.insert('lockgate.calls', [['x' * 10_000], ['x' * 10_000 + sys.argv[2]]], ['input'])\n"
    )
    secret = 'a "secret"/with\\ +&% 0123456789'
    subprocess.run([sys.executable, "-c", planting, str(tmp_path / "data"), secret], check=True)
    assert found(clickhouse(tmp_path / "data"), secret=secret.encode()) == {"ClickHouse"}


@pytest.mark.parametrize("name", NAMES)
def test_settings_show_no_secret_wherever_a_report_of_an_error_shows_them(name: Name) -> None:
    cls, given = settings_class(name), dict[str, str]()
    for setting, described in cls.model_fields.items():
        if setting.endswith("_database_url"):
            given[setting] = f"postgresql://lockgate:{secrets.token_hex(12)}@db/lockgate"
        elif SecretStr in getattr(described.annotation, "__args__", (described.annotation,)):
            given[setting] = base64.b64encode(secrets.token_bytes(32)).decode()
    assert given
    settings = load(cls, **given)
    shown = f"{settings!r} {settings}".encode()
    hidden = {key: value.rpartition("@")[0].rpartition(":")[2] or value for key, value in given.items()}
    assert search({key: value.encode() for key, value in hidden.items()}, iter([(name, shown)])) == []
