"""What a credential costs a call: `python -m bench.credentials [--people 500]`.

    cold  asking the credentials service over NATS, which opens it in its vault, seals it, and records that:
          milliseconds, each credential once, nobody else asking meanwhile
    warm  deciding a call and having its credential at hand, compared with a call to a server that wants
          none: microseconds of CPU time

The service is a real `lockgate serve credentials` process, NATS a real server.
"""

import argparse
import base64
import gc
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import cast

import uvloop
from sqlmodel import Session

from bench.control import verdict
from bench.organization import user
from bench.processes import PROGRAMS, cpu_of, free_port, running
from bench.replicas import PUBLIC_URL, Replica, nats_server, service
from libs.common.control.entries import (
    AnyEntry,
    Group,
    Member,
    Org,
    Server,
    ServerAccess,
    User,
    destination_of,
)
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, decide
from libs.common.decision.subjects import Subject
from libs.common.sql import open_database, sqlite_url
from libs.common.tokens import Claims
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Account, Owner, encode_values
from services.credentials.masterkey.local import LocalKey
from services.credentials.store.keys import unlock
from services.credentials.store.rows import fill, name_of
from services.gateway.credentials import Wallet
from services.gateway.ticket import Caller, Shared, Ticket

WARM, COLD = 5.0, 5.0  # aims: microseconds, milliseconds
CALLS, ROUNDS = 20_000, 15
WITHIN = 60.0  # seconds
OPEN = Server(version=1, slug="open", name="Open", url="https://crm.example.com/mcp")
KEYED = Server(version=1, slug="keyed", name="Keyed", url="https://crm.example.com/mcp", auth="api_key")


def organization(people: int) -> Iterator[AnyEntry]:
    """Two servers, one that wants a credential, and people who use them."""
    yield from (Org(version=1), OPEN, KEYED)
    access = {server.slug: ServerAccess(default="allow") for server in (OPEN, KEYED)}
    yield Group(version=1, id="all", name="All", servers=access)
    for n in range(people):
        yield User(version=1, id=user(n), email=f"person.{n}@corp.example", name=f"Person Number {n}")
        yield Member(version=1, user=user(n), group="all")


# -- the service ---------------------------------------------------------------------------------------


def fill_vault(directory: Path, key: bytes, people: int) -> None:
    """A vault with a key of each of them for the server that wants one."""
    directory.mkdir()
    engine = open_database(sqlite_url(directory / "credentials.db"), MIGRATIONS)
    master = LocalKey(key)
    vault = unlock(engine, [master])
    with Session(engine) as session, session.begin():
        for n in range(people):
            account = Account(
                id=f"{n:026}", owner=Owner("keyed", user(n)), kind="api_key", origin=destination_of(KEYED),
                version=1, sealed_version=1, created_at="", created_by="", changed_at="", changed_by="",
            )  # fmt: skip
            secret = encode_values({"key": secrets.token_urlsafe(32)})
            data_key = vault.new_data_key(name_of(account.id), master.id)
            session.add(fill(None, account, data_key.seal(secret, account.identity())))
    engine.dispose()


@contextmanager
def credentials_service(directory: Path, nats_url: str, key: bytes) -> Iterator[Replica]:
    """The process, which has just been started on what is in `directory`."""
    port = free_port()
    settings = {
        "PUBLIC_URL": PUBLIC_URL,
        "NATS_URL": nats_url,
        "LOG_LEVEL": "warning",
        "DATA_DIR": str(directory),
        "CREDENTIALS_MASTER_KEY": base64.b64encode(key).decode(),
    }
    command = [str(PROGRAMS / "lockgate"), "serve", "credentials", "--port", str(port)]
    began, environment = time.perf_counter(), {f"LOCKGATE_{name}": value for name, value in settings.items()}
    with running(command, None, directory.with_suffix(".log"), **environment) as pid:
        yield Replica(f"http://127.0.0.1:{port}", pid, began)


# -- cold ----------------------------------------------------------------------------------------------


async def measure_cold(wallet: Wallet, process: Replica, people: int) -> None:
    cpu = cpu_of(process.pid)
    taken = [await _open(wallet, f"keyed.{user(n)}") for n in range(people)]
    cpu = (cpu_of(process.pid) - cpu) / people * 1000
    percentiles = quantiles(taken, n=100)
    print(
        f"cold      p50 {percentiles[49]:.2f} ms, p99 {percentiles[98]:.2f} ms, at best {min(taken):.2f}: "
        f"{people} credentials, {cpu:.2f} ms of the service's CPU time for each"
    )
    print(f"Aim: p50 under {COLD:.0f} ms: {verdict(percentiles[49] < COLD)}.")


async def _open(wallet: Wallet, key: str) -> float:
    """Milliseconds until the credential is there."""
    assert wallet.held(key) is None
    began = time.perf_counter()
    await wallet.open(key)
    taken = (time.perf_counter() - began) * 1000
    assert wallet.held(key)
    return taken


# -- warm ----------------------------------------------------------------------------------------------


async def measure_warm(wallet: Wallet, tables: Tables, people: int) -> None:
    """In turns, since the machine is not always as fast."""
    shared = cast(Shared, SimpleNamespace(tables=tables, wallet=wallet))
    callers = {slug: [_caller(shared, slug, n) for n in range(people)] for slug in ("open", "keyed")}
    gc.freeze()
    taken: dict[str, list[float]] = {slug: [] for slug in callers}
    for _ in range(ROUNDS):
        for slug, some in callers.items():
            taken[slug].append(await _call_all(tables, slug, some))
    none, keyed = (median(each) for each in taken.values())
    print(f"warm      {keyed:.2f} µs, and {none:.2f} µs where none is wanted: medians of {ROUNDS} rounds")
    print(f"Aim: under {WARM:.0f} µs more: {keyed - none:.2f}, {verdict(keyed - none < WARM)}.")


def _caller(shared: Shared, slug: str, n: int) -> tuple[Claims, Ticket]:
    expires = int(time.time()) + 3600
    claims = Claims(user(n), f"grant-{n}", "bench", "Bench", ("x",), expires - 3600, expires)
    return claims, Ticket(shared, Caller(claims), slug, "POST")


async def _call_all(tables: Tables, slug: str, callers: list[tuple[Claims, Ticket]]) -> float:
    """Microseconds of CPU time from the beginning of a decision until the credential is there."""
    call = Call(slug, "tools/call", (Subject("tool", "find_customers"),), {"amount": 12})
    began = time.process_time()
    for _ in range(CALLS // len(callers)):
        for claims, ticket in callers:
            decision = decide(tables, 1, True, claims, call)
            assert decision.allowed, decision
            opened = await ticket.credential(decision)
            assert bool(opened.headers) == (slug == "keyed")
    return (time.process_time() - began) / (CALLS // len(callers) * len(callers)) * 1e6


# -- the program ---------------------------------------------------------------------------------------


async def run(people: int) -> None:
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as made_here:
        directory = Path(made_here)
        fill_vault(directory / "credentials", key, people)
        with nats_server(directory) as url:
            async with service(url, organization(people)) as made:
                with credentials_service(directory / "credentials", url, key) as process:
                    await process.ready()
                    tables = made.follower.tables
                    await made.follower.wait_for(lambda: len(tables.credentials) == people, WITHIN)
                    wallet = Wallet(made.bus, tables)
                    await measure_cold(wallet, process, people)
                    await measure_warm(wallet, tables, people)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--people", type=int, default=500, help="who have a credential each")
    uvloop.run(run(parser.parse_args().people))


if __name__ == "__main__":
    main()
