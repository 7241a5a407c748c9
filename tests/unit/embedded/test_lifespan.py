"""The lifespan driver, against apps written by hand and by Starlette."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from libs.common.errors import Unavailable
from libs.common.settings import BadSettings
from services.embedded import lifespan
from services.embedded.lifespan import Lifespan, StartupFailed


def app_that(
    events: list[str], at_start: Exception | None = None, at_stop: Exception | None = None
) -> Starlette:
    """An app that writes down when it starts and stops, or fails to."""

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        if at_start:
            raise at_start
        events.append("started")
        yield
        if at_stop:
            raise at_stop
        events.append("stopped")

    return Starlette(lifespan=life)


async def test_the_app_has_started_when_start_returns_and_stopped_when_stop_does() -> None:
    events: list[str] = []
    life = Lifespan("auth", lambda: app_that(events))
    await life.start()
    assert events == ["started"]
    await life.stop()
    assert events == ["started", "stopped"]


async def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    events: list[str] = []
    life = Lifespan("auth", lambda: app_that(events))
    await life.stop()
    await life.start()
    await life.stop()
    await life.stop()
    assert events == ["started", "stopped"]


async def test_a_failed_start_says_which_service_and_why_in_one_line() -> None:
    life = Lifespan("policy", lambda: app_that([], at_start=Unavailable("NATS does not answer")))
    with pytest.raises(StartupFailed, match=r"^policy could not start: NATS does not answer$") as failed:
        await life.start()
    assert isinstance(failed.value.__cause__, Unavailable)


async def test_a_factory_that_raises_is_a_failed_start() -> None:
    def create() -> Starlette:
        raise ValueError("bad database")

    with pytest.raises(StartupFailed, match=r"^auth could not start: ValueError: bad database$"):
        Lifespan("auth", create)


@pytest.mark.parametrize("when", ["made", "started"])
async def test_bad_settings_found_by_the_app_stay_what_they_are(
    when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = BadSettings("LOCKGATE_X: is wrong")

    def create() -> Starlette:
        if when == "made":
            raise bad
        return app_that([], at_start=bad)

    with pytest.raises(BadSettings) as raised:
        await Lifespan("auth", create).start()
    assert raised.value is bad
    assert "startup_failed" not in "".join(capsys.readouterr())


async def test_an_app_that_ends_without_an_answer_has_not_started() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    with pytest.raises(StartupFailed, match="without a word"):
        await Lifespan("auth", lambda: silent).start()


async def test_an_app_that_reports_a_failure_and_returns_has_not_started() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(StartupFailed, match="no disk"):
        await Lifespan("auth", lambda: refusing).start()


async def test_a_failure_at_the_end_does_not_keep_others_from_stopping() -> None:
    life = Lifespan("auth", lambda: app_that([], at_stop=OSError("disk gone")))
    await life.start()
    await life.stop()


async def test_an_app_that_does_not_stop_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "STOP_WITHIN", 0.05)
    cancelled = asyncio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    life = Lifespan("auth", lambda: stubborn)
    await life.start()
    await life.stop()
    assert cancelled.is_set()


async def test_cancelling_the_start_cancels_the_app() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    starting = asyncio.create_task(Lifespan("auth", lambda: slow).start())
    await entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert cancelled.is_set()
