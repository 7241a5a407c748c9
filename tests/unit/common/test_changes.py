"""An administrator's change: what is committed is recorded, whatever becomes of who asked for it."""

import asyncio
import threading
from typing import Any

import pytest

from libs.common.control.changes import Changes, Told
from libs.common.control.entries import User
from libs.common.control.owner import Receipt
from tests.conftest import eventually

ADMIN = User(version=1, id="a", email="admin@x.example", role="admin")


class Log:
    """Stands for the owner and the journal."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.recorded: list[Any] = []

    async def publish(self, *keys: str) -> Receipt:
        self.published += keys
        return Receipt(7, True)

    def append(self, record: Any) -> None:
        self.recorded.append(record)


def tell(state: str) -> Told:
    return Told(["server.demo"], '"before"', f'"{state}"', happened=state != "same")


async def test_a_change_is_published_recorded_and_answered_with_its_receipt() -> None:
    log = Log()
    state, receipt = await Changes(log, log).make(ADMIN, "server_changed", lambda: "new", tell)  # type: ignore[arg-type]
    assert (state, receipt.revision, log.published) == ("new", 7, ["server.demo"])
    (event,) = log.recorded
    assert (event.event, event.email, event.before, event.after) == (
        "server_changed",
        "admin@x.example",
        '"before"',
        '"new"',
    )
    assert (event.subject, event.revision) == ("server.demo", 7)


async def test_what_changes_nothing_is_published_but_not_recorded() -> None:
    log = Log()
    await Changes(log, log).make(ADMIN, "server_changed", lambda: "same", tell)  # type: ignore[arg-type]
    assert log.published and not log.recorded


async def test_a_change_whose_caller_went_away_in_the_middle_is_recorded_all_the_same() -> None:
    log, committing, commit = Log(), threading.Event(), threading.Event()

    def write() -> str:
        committing.set()
        commit.wait(5)
        return "new"

    asked = asyncio.create_task(Changes(log, log).make(ADMIN, "server_changed", write, tell))  # type: ignore[arg-type]
    await eventually(committing.is_set)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    commit.set()
    await eventually(lambda: log.recorded)
    assert log.published == ["server.demo"]
