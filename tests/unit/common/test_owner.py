"""How an owner finds out where the log differs from its database, when both are large or the log is lost."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import cast

import msgspec
import nats.errors
import pytest

from libs.common.bus import Bus
from libs.common.control import owner as owner_module
from libs.common.control.entries import AnyEntry, Org, User, key_of
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.errors import Unavailable
from libs.common.settings import Settings


class Log:
    """Stands for the follower: tells the owner what is in the log, and that it was lost."""

    def __init__(self) -> None:
        self.tell: Callable[[str, bytes | None, int], None] = lambda *_: None
        self.lose: Callable[[], None] = lambda: None

    def subscribe(self, on_change: Callable[[str, bytes | None, int], None]) -> None:
        self.tell = on_change

    def on_anew(self, callback: Callable[[], None]) -> None:
        self.lose = callback


USERS = 2_000
PEOPLE: list[AnyEntry] = [User(version=1, id=f"u{n}", email="u@x.example") for n in range(USERS)]
ENTRIES: dict[str, AnyEntry] = {key_of(entry): entry for entry in [Org(version=1), *PEOPLE]}


async def database(_: Collection[str] | None) -> Mapping[str, AnyEntry]:
    return ENTRIES


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def owner(log: Log) -> Owner:
    settings, follower = Settings(), cast("Follower", log)
    made = Owner(Bus(settings, "test"), follower, settings, {"org", "user"}, database)
    for revision, (key, entry) in enumerate(ENTRIES.items(), 1):
        log.tell(key, msgspec.json.encode(entry), revision)
    return made


async def test_what_the_log_has_as_the_database_has_it_is_left_alone(owner: Owner) -> None:
    assert await owner._differing(ENTRIES) == []


async def test_what_one_of_them_has_and_the_other_has_not_is_found(owner: Owner, log: Log) -> None:
    log.tell("user.gone", b'{"version":1}', USERS + 10)
    log.tell("user.u5", None, USERS + 11)
    changed = ENTRIES | {"user.u7": User(version=2, id="u7", email="new@x.example")}
    assert sorted(await owner._differing(changed)) == ["user.gone", "user.u5", "user.u7"]


async def test_others_have_their_turn_while_much_is_compared(owner: Owner) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await owner._differing(ENTRIES)
    task.cancel()
    assert turns >= USERS // owner_module.SLICE - 1


async def test_a_log_that_is_lost_halfway_is_compared_from_the_beginning(owner: Owner, log: Log) -> None:
    """Else some of what forbids would be missing in the new log, and `org`, which allows, would be in it."""
    comparing = asyncio.create_task(owner._differing(ENTRIES))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not comparing.done(), "in the middle of it"
    log.lose()
    assert set(await comparing) == set(ENTRIES)


async def test_an_entry_that_cannot_be_written_keeps_no_other_from_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    async def bring(key: str) -> int:
        if key == "user.u1":
            raise nats.errors.MaxPayloadError
        written.append(key)
        return 1

    monkeypatch.setattr(owner, "_bring", bring)
    monkeypatch.setattr(Bus, "connected", True)
    with pytest.raises(Unavailable, match=r"user\.u1"):
        await owner._bring_all(["org", "user.u1", "user.u2"])
    assert written == ["user.u2", "org"]


async def test_a_log_that_is_written_anew_gets_no_organization_before_all_the_rest(
    owner: Owner, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    async def bring(key: str) -> int:
        if key == "user.u1":
            raise nats.errors.MaxPayloadError
        written.append(key)
        return 1

    monkeypatch.setattr(owner, "_bring", bring)
    monkeypatch.setattr(Bus, "connected", True)
    log.lose()
    with pytest.raises(Unavailable):
        await owner._bring_all(["org", "user.u1", "user.u2"])
    assert written == ["user.u2"]
