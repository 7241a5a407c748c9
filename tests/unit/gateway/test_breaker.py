"""When an upstream counts as down, who is told so at once, and how it is found to be back."""

import asyncio
from itertools import pairwise

import pytest

from libs.common.control.entries import Group, Server, ServerAccess
from services.gateway import breaker as breaker_module
from services.gateway import pool as pool_module
from services.gateway.breaker import FIRST_DELAY, LONGEST_DELAY, THRESHOLD, WINDOW, Breaker
from services.gateway.connection import Connection, UpstreamFailed
from services.gateway.dialing import Dialer, Origin
from services.gateway.pool import PATIENCE, Pool, Pools
from services.gateway.upstream import UpstreamExchange
from tests.conftest import eventually, free_port
from tests.unit.gateway.conftest import DEMO_ACCESS, PUBLIC_URL, House, token
from tests.unit.gateway.conftest import Exchange as Seen
from tests.unit.gateway.raw_upstream import (
    OK,
    answering,
    begin,
    call,
    listening,
    pool_to,
    run,
    silent,
    upstream,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(clock)
    assert [breaker.failed("no") for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]
    return breaker


# -- the state machine -----------------------------------------------------------------------------


def test_it_opens_after_so_many_failures_in_a_row_and_one_success_closes_it() -> None:
    breaker = Breaker(Clock())
    for _ in range(THRESHOLD - 1):
        assert not breaker.failed("no")
        assert not breaker.open
    assert not breaker.succeeded(), "it was not open"
    for _ in range(THRESHOLD - 1):
        breaker.failed("no")
    assert not breaker.open
    assert breaker.failed("still no")
    assert (breaker.open, breaker.why) == (True, "still no")
    assert not breaker.failed("again"), "it has not opened once more"
    assert breaker.succeeded()
    assert not breaker.open


def test_failures_that_lie_far_apart_are_not_in_a_row() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(3 * THRESHOLD):
        breaker.failed("no")
        assert not breaker.open
        clock.now += WINDOW + 1
    for _ in range(THRESHOLD):
        breaker.failed("no")
        clock.now += WINDOW
    assert breaker.open


def test_it_stays_open_however_long_nothing_is_heard() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 100 * WINDOW
    breaker.failed("no")
    assert breaker.open


def test_trials_come_later_and_later_up_to_a_limit() -> None:
    clock = Clock()
    breaker = broken(clock)
    waits = []
    for _ in range(8):
        waits.append(breaker.trial_in)
        clock.now += breaker.trial_in
        assert breaker.trial_in == 0
        breaker.begin_trial()
    assert waits == [FIRST_DELAY, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]
    breaker.succeeded()
    for _ in range(THRESHOLD):
        breaker.failed("no")
    assert breaker.trial_in == FIRST_DELAY, "the next outage begins anew"


def test_since_is_when_the_outage_began() -> None:
    breaker = Breaker(Clock())
    breaker.failed("no")
    first = breaker.since
    for _ in range(THRESHOLD):
        breaker.failed("no")
    assert breaker.since == first
    breaker.succeeded()
    breaker.failed("no")
    assert first and breaker.since and breaker.since > first


def test_eased_it_is_closed_and_one_failure_opens_it_again() -> None:
    breaker = broken(Clock())
    breaker.ease()
    assert not breaker.open
    assert breaker.failed("no")
    assert breaker.open


# -- what cannot be reached ------------------------------------------------------------------------


async def fail(pool: Pool, times: int = THRESHOLD, timeout: float = 5.0) -> list[str]:
    """The reasons of so many calls that fail."""
    reasons = []
    for _ in range(times):
        with pytest.raises(UpstreamFailed) as failed:
            await call(pool, timeout)
        reasons.append(failed.value.reason)
    return reasons


async def test_what_refuses_connections_is_down_until_a_probe_gets_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker_module, "FIRST_DELAY", 0.05)
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(reader, writer)

    port = free_port()
    async with pool_to(port) as pool:
        assert await fail(pool) == ["upstream_unreachable"] * THRESHOLD
        with pytest.raises(
            UpstreamFailed, match=r"down since \d{4}-.* UTC .*: it refuses connections"
        ) as down:
            await call(pool)
        assert down.value.reason == "upstream_down"
        (outage,) = pool.outages()
        assert (outage.server, outage.origin) == ("demo", f"http://127.0.0.1:{port}")
        assert outage.why == "it refuses connections"

        server = await asyncio.start_server(handler, "127.0.0.1", port)
        await eventually(lambda: not list(pool.outages()))
        await eventually(lambda: connections == 1)  # the probe's, and nobody's call
        assert await call(pool) == b"ok"
        server.close()


def count_dials(pool: Pool) -> list[float]:
    """When connections were tried, from here on."""
    tried: list[float] = []
    dial = pool._dialer.dial

    async def counted() -> Connection:
        tried.append(asyncio.get_running_loop().time())
        return await dial()

    pool._dialer.dial = counted  # type: ignore[method-assign]
    return tried


async def test_callers_do_not_try_what_is_known_to_be_down() -> None:
    async with pool_to(free_port()) as pool:
        tried = count_dials(pool)
        await fail(pool, THRESHOLD)
        assert await fail(pool, 50) == ["upstream_down"] * 50
        assert len(tried) == THRESHOLD


async def test_probes_come_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "FIRST_DELAY", 0.02)
    async with pool_to(free_port()) as pool:
        await fail(pool)
        tried = count_dials(pool)
        await eventually(lambda: len(tried) == 5)
        gaps = [later - earlier for earlier, later in pairwise(tried)]
        assert all(gap >= 0.9 * 0.04 * 2**number for number, gap in enumerate(gaps)), gaps


async def test_connections_that_stand_are_used_while_new_ones_fail() -> None:
    async with listening(answering) as port, pool_to(port) as pool:
        await run(standing := UpstreamExchange(pool))
        pool._dialer = Dialer(Origin("http", "127.0.0.1", free_port()), None)  # nothing new connects
        await fail(pool)
        assert list(pool.outages())
        standing.release()
        assert await call(pool) == b"ok"


async def test_an_upstream_that_nobody_asks_for_is_not_probed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker_module, "FIRST_DELAY", 0.01)
    clock = Clock()
    monkeypatch.setattr(pool_module, "elapsed", clock)
    async with pool_to(free_port()) as pool:
        await fail(pool)
        clock.now += PATIENCE + 1
        prober = pool._prober
        assert prober
        await asyncio.wait_for(prober, 5)
        assert not list(pool.outages())
        assert await fail(pool, 1) == ["upstream_unreachable"], "the next caller tries"
        assert list(pool.outages()), "and that is enough to know"


async def test_what_fails_for_want_of_something_of_ours_does_not_count_against_the_upstream() -> None:
    async with pool_to(free_port()) as pool:

        async def exhausted() -> Connection:
            raise OSError(24, "Too many open files")

        pool._dialer.dial = exhausted  # type: ignore[method-assign]
        await fail(pool, 3 * THRESHOLD)
        assert not list(pool.outages())


async def test_a_pool_that_is_stopped_probes_no_more() -> None:
    async with pool_to(free_port()) as pool:
        await fail(pool)
        prober = pool._prober
    assert prober and prober.done()


# -- what does not answer --------------------------------------------------------------------------


async def test_what_does_not_answer_is_down_but_for_one_call_now_and_then() -> None:
    clock, works = Clock(), False

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            if not works:
                await silent(reader, writer)
            writer.write(OK)

    async with upstream(handler) as pool:
        pool._silent = Breaker(clock)
        assert await fail(pool, THRESHOLD, timeout=0.02) == ["upstream_timeout"] * THRESHOLD
        with pytest.raises(UpstreamFailed, match="did not answer within") as down:
            await call(pool)
        assert down.value.reason == "upstream_down"
        clock.now += FIRST_DELAY
        assert await fail(pool, 3, timeout=0.02) == ["upstream_timeout", "upstream_down", "upstream_down"]
        works = True
        assert await fail(pool, 1) == ["upstream_down"], "it is not time for a trial"
        clock.now += 2 * FIRST_DELAY
        assert await call(pool) == b"ok"
        assert await call(pool) == b"ok"
        assert not list(pool.outages())


async def test_an_answer_to_a_call_that_still_runs_ends_the_outage() -> None:
    answer = asyncio.Event()
    first = True

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        await reader.readuntil(b"\r\n\r\n")
        if first:
            first = False
            await answer.wait()
            writer.write(OK)
        else:
            await silent(reader, writer)

    async with upstream(handler) as pool:
        slow = asyncio.create_task(call(pool))
        await eventually(lambda: not first)
        await fail(pool, THRESHOLD, timeout=0.02)
        assert list(pool.outages())
        answer.set()
        assert await slow == b"ok"
        assert not list(pool.outages())


@pytest.mark.parametrize("status", [500, 502, 503, 404])
async def test_whatever_status_it_answers_with_it_is_not_down(status: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 %d Bad\r\ncontent-length: 0\r\n\r\n" % status)

    async with upstream(handler) as pool:
        for _ in range(2 * THRESHOLD):
            assert await call(pool) == b""
        assert not list(pool.outages())


async def test_a_call_that_its_caller_gives_up_says_nothing_about_the_upstream() -> None:
    async with upstream(silent) as pool:
        for _ in range(2 * THRESHOLD):
            exchange = UpstreamExchange(pool)
            task = asyncio.create_task(begin(exchange))
            await asyncio.sleep(0.01)
            exchange.abort(UpstreamFailed("cancelled", "gone"))
            with pytest.raises(UpstreamFailed, match="gone"):
                await task
            exchange.release()
        assert not list(pool.outages())


# -- through the gateway ---------------------------------------------------------------------------


async def test_a_server_that_is_down_answers_for_no_other_on_the_same_origin() -> None:
    pools = Pools(10)
    async with listening(silent) as port:
        origin = Origin("http", "127.0.0.1", port)
        await fail(pools.pool(origin, "dead"), timeout=0.02)
        assert [outage.server for outage in pools.outages()] == ["dead"]
        assert await fail(pools.pool(origin, "other"), 1, timeout=0.02) == ["upstream_timeout"]
        await pools.stop()


async def test_the_caller_is_told_at_once_with_a_time_to_come_back_and_it_is_recorded(house: House) -> None:
    dead = f"http://127.0.0.1:{free_port()}/mcp"
    await house.put(
        Server(version=2, slug="dead", name="Dead", url=dead),
        Group(
            version=2,
            id="default",
            name="E",
            servers={"demo": DEMO_ACCESS, "dead": ServerAccess(default="allow")},
        ),
    )
    bearer = token(audience=f"{PUBLIC_URL}/mcp/dead")
    for _ in range(THRESHOLD):
        assert (await house.call(bearer=bearer, server="dead")).status_code == 502
    response = await house.call(bearer=bearer, server="dead")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    error = response.json()["error"]
    assert error["data"]["reason"] == "upstream_down"
    assert error["message"].startswith("Lockgate: dead: it has been down since ")
    record = await house.record(THRESHOLD + 1)
    assert (record["status"], record["reason"]) == ("failed", "upstream_down")
    assert (await house.call()).status_code == 200, "the others work"


async def test_a_slow_server_delays_no_other(house: House) -> None:
    never = asyncio.Event()

    async def script(exchange: Seen) -> None:
        if exchange.message["params"]["name"] == "slow":
            await never.wait()
        else:
            await exchange.result({})

    house.upstream.script = script
    slow = [asyncio.create_task(house.call("slow")) for _ in range(3)]
    await eventually(lambda: len(house.upstream.seen) == 3)
    async with asyncio.timeout(1):
        assert (await house.call("fast")).status_code == 200
    never.set()
    await asyncio.gather(*slow)
