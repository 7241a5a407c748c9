"""What the control log costs: `python -m bench.control [ready decision receipts streams]`, or all four.

    ready     a replica over the log of a large organization: seconds until it is ready, and its memory
    decision  what a decision costs there, and over the log of ten users, for the same callers
    receipts  how long a change takes until all of ten replicas decide by it
    streams   how long a switch takes that ends a thousand open streams

Replicas are real `lockgate serve gateway` processes with a NATS server of their own. A machine that others
use too makes all of it slower, so the CPU time of processes is told beside the time of the clock.
"""

import argparse
import asyncio
import gc
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles

import msgspec
import uvloop

from bench.organization import organization, servers_of, slug, tool, user
from bench.processes import cpu_of
from bench.replicas import Replica, Service, nats_server, replicas, service, token
from libs.common.control.entries import Group, Server, key_of
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, decide
from libs.common.decision.subjects import Subject
from libs.common.tokens import Claims

USERS, SERVERS, GROUPS, RULES = 100_000, 1_000, 500, 200
READY, MEMORY = 10.0, 500.0  # aims: seconds, MB
DEARER, CALLS = 1.2, 20_000  # aim: times the cost with ten users
RECEIPT = 50.0  # aim: milliseconds
STREAMS, ENDED = 1_000, 1.0  # aim: seconds
STREAM_USERS = 10


def verdict(met: bool) -> str:
    return "met" if met else "missed"


# -- ready ---------------------------------------------------------------------------------------------


async def measure_ready(directory: Path) -> None:
    with nats_server(directory) as url:
        async with service(url, organization(USERS, SERVERS, GROUPS, RULES)) as made:
            print(f"log       {len(made.entries)} entries")
        with replicas(directory, url, 1) as (replica,):
            seconds, cpu = await replica.ready(), cpu_of(replica.pid)
            memory, peak = replica.memory(), replica.memory("VmHWM")
    print(
        f"ready     after {seconds:.1f} s ({cpu:.1f} s of CPU), "
        f"{memory:.0f} MB resident, {peak:.0f} MB at the most"
    )
    print(f"Aim: {READY:.0f} s: {verdict(seconds <= READY)}; {MEMORY:.0f} MB: {verdict(peak <= MEMORY)}.")


# -- decision ------------------------------------------------------------------------------------------


def tables_of(users: int, servers: int, groups: int, rules: int) -> Tables:
    """As a follower makes them."""
    tables = Tables()
    for entry in organization(users, servers, groups, rules):
        tables.apply(key_of(entry), msgspec.json.encode(entry))
    return tables


def calls_of(count: int, users: int, servers: int, groups: int) -> list[tuple[Claims, Call]]:
    """Calls of people chosen at random, each to a server that their group may use."""
    chance, expires = random.Random(count), int(time.time()) + 3600
    usable = {group: servers_of(group, servers) for group in range(groups)}
    calls = []
    for _ in range(count):
        n = chance.randrange(users)
        server = chance.choice(usable[n % groups])
        claims = Claims(user(n), f"grant-{n}", "bench", "Bench", ("x",), expires - 3600, expires)
        subject = Subject("tool", tool(chance.randrange(3, 20)))
        calls.append((claims, Call(slug(server), "tools/call", (subject,), {"amount": 12})))
    return calls


def decider(tables: Tables, calls: list[tuple[Claims, Call]]) -> Callable[[], float]:
    """Measures the microseconds of CPU time that a decision on one of `calls` takes."""
    assert all(decide(tables, 1, True, claims, call).allowed for claims, call in calls)

    def once() -> float:
        began = time.process_time()
        for claims, call in calls:
            decide(tables, 1, True, claims, call)
        return (time.process_time() - began) / len(calls) * 1e6

    return once


def measure_decision() -> None:
    large = tables_of(USERS, SERVERS, GROUPS, RULES)
    ten, everybody = calls_of(CALLS, 10, SERVERS, GROUPS), calls_of(CALLS, USERS, SERVERS, GROUPS)
    deciders = {
        "ten callers in the large log": decider(large, ten),
        "ten callers in the log of ten users": decider(tables_of(10, SERVERS, GROUPS, RULES), ten),
        "as many callers as calls, whom no processor's cache holds": decider(large, everybody),
        "ten users, ten servers, one group, no rules": decider(
            tables_of(10, 10, 1, 0), calls_of(CALLS, 10, 10, 1)
        ),
    }
    gc.freeze()
    taken: dict[str, list[float]] = {name: [] for name in deciders}
    for _ in range(15):  # in turns, since the machine is not always as fast
        for name, once in deciders.items():
            taken[name].append(once())
    for name, each in taken.items():
        print(f"decision  {median(each):5.2f} µs, at best {min(each):5.2f}: {name}")
    in_large, in_small, *_ = map(median, taken.values())
    ratio = in_large / in_small
    print(f"Aim: at most {DEARER} times the cost with ten users: {ratio:.2f}, {verdict(ratio <= DEARER)}.")


# -- receipts ------------------------------------------------------------------------------------------


async def measure_receipts(directory: Path, count: int, changes: int) -> None:
    with nats_server(directory) as url:
        async with service(url, organization(1_000, 20, 10, 20)) as made:
            with replicas(directory, url, count) as started:
                await asyncio.gather(*map(Replica.ready, started))
                await _change(made, count, 20)
                began, cpu = time.perf_counter(), sum(cpu_of(replica.pid) for replica in started)
                taken = await _change(made, count, changes)
                cpu = (sum(cpu_of(replica.pid) for replica in started) - cpu) / (time.perf_counter() - began)
    percentiles = quantiles(taken, n=100)
    print(
        f"receipts  p50 {percentiles[49]:.1f} ms, p99 {percentiles[98]:.1f} ms, most {max(taken):.1f} ms: "
        f"{changes} changes, {count} replicas, which took {cpu:.0%} of a core"
    )
    print(f"Aim: p99 under {RECEIPT:.0f} ms: {verdict(percentiles[98] < RECEIPT)}.")


async def _change(made: Service, replicas: int, changes: int) -> list[float]:
    """Change a group again and again. Returns the milliseconds to each receipt."""
    taken = []
    for _ in range(changes):
        group = made.entries["group.group-1"]
        assert isinstance(group, Group)
        key = made.put(msgspec.structs.replace(group, version=group.version + 1))
        began = time.perf_counter()
        receipt = await made.owner.publish(key)
        taken.append((time.perf_counter() - began) * 1000)
        assert receipt.complete and len(receipt.replicas) == replicas, receipt
        assert all(replica.state == "applied" for replica in receipt.replicas), receipt
        await asyncio.sleep(random.uniform(0.0, 0.05))  # not in step with the heartbeats
    return taken


# -- streams -------------------------------------------------------------------------------------------


class Upstream:
    """Answers every request with an event stream that it never ends."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                b"d\r\n: connected\n\n\r\n"
            )
            await reader.read()
        writer.close()


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    server = await asyncio.start_server(Upstream().serve, "127.0.0.1", 0, backlog=STREAMS)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


async def open_stream(replica: Replica, bearer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream for notifications that has begun. It lives as long as its writer."""
    host, port = replica.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /mcp/{slug(0)} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {bearer}\r\n"
        "Accept: text/event-stream\r\n\r\n".encode()
    )
    head = await reader.readuntil(b": connected")
    assert head.startswith(b"HTTP/1.1 200"), head
    return reader, writer


async def measure_streams(directory: Path, rounds: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8 * STREAMS)), hard))
    async with upstream() as address:
        with nats_server(directory) as url:
            async with service(url, organization(STREAM_USERS, 2, 1, 0, address)) as made:
                with replicas(directory, url, 1, GATEWAY_USER_STREAMS=str(STREAMS)) as (replica,):
                    await replica.ready()
                    taken = [await _switch_off(made, replica) for _ in range(rounds)]
    ended, done = (max(times) * 1000 for times in zip(*taken, strict=True))
    print(
        f"streams   the last of {STREAMS} ended {ended:.0f} ms after the switch, "
        f"the receipt came after {done:.0f} ms (the slowest of {rounds})"
    )
    print(f"Aim: all within {ENDED:.0f} s: {verdict(ended <= ENDED * 1000)}.")


async def _switch_off(made: Service, replica: Replica) -> tuple[float, float]:
    """Seconds from the switch to the end of the last stream, and to the receipt."""
    bearers = [token(user(n), slug(0)) for n in range(STREAM_USERS)]
    streams = []
    for first in range(0, STREAMS, 50):
        opened = [open_stream(replica, bearers[n % STREAM_USERS]) for n in range(first, first + 50)]
        streams += await asyncio.gather(*opened)
    reading = [asyncio.create_task(reader.read()) for reader, _ in streams]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in reading)
    began = time.perf_counter()
    receipt = await made.owner.publish(_switched(made, enabled=False))
    done = time.perf_counter() - began
    assert receipt.complete
    async with asyncio.timeout(60):
        await asyncio.gather(*reading)
    ended = time.perf_counter() - began
    assert (await made.owner.publish(_switched(made, enabled=True))).complete
    return ended, done


def _switched(made: Service, *, enabled: bool) -> str:
    server = made.entries[f"server.{slug(0)}"]
    assert isinstance(server, Server)
    return made.put(msgspec.structs.replace(server, version=server.version + 1, enabled=enabled))


# -- the program ---------------------------------------------------------------------------------------


PARTS = ("ready", "decision", "receipts", "streams")


async def run(parts: Sequence[str], count: int, changes: int, rounds: int) -> None:
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as made:
            directory = Path(made)
            if part == "ready":
                await measure_ready(directory)
            elif part == "decision":
                measure_decision()
            elif part == "receipts":
                await measure_receipts(directory, count, changes)
            else:
                await measure_streams(directory, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--replicas", type=int, default=10, help="of receipts")
    parser.add_argument("--changes", type=int, default=500, help="of receipts")
    parser.add_argument("--rounds", type=int, default=3, help="of streams")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    uvloop.run(run(options.parts or PARTS, options.replicas, options.changes, options.rounds))


if __name__ == "__main__":
    main()
