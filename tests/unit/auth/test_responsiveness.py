"""Passwords are hashed beside the event loop, never in it, and nobody else waits for that."""

import asyncio
import threading
from unittest.mock import patch

import pytest
from argon2 import PasswordHasher

from tests.unit.auth.house import EMAIL, PASSWORD, Browser, Client, House

LOGINS = 20
ANSWER_WITHIN = 10.0  # seconds


async def sign_in_together(house: House) -> list[int]:
    """So many people sign in at once, each from an address of their own."""
    browsers = [house.browser(f"192.0.2.{number}") for number in range(LOGINS)]
    return [answer.status_code for answer in await asyncio.gather(*(b.sign_in() for b in browsers))]


@pytest.fixture(autouse=True)
def argon2() -> None:
    """As expensive as in the product."""


@pytest.fixture
async def token(browser: Browser, client: Client) -> str:
    refresh_token: str = (await client.connect(browser))["refresh_token"]
    return refresh_token


async def test_health_checks_and_refreshes_are_answered_while_logins_wait_for_their_hash(
    house: House, client: Client, token: str
) -> None:
    """With hashing that does not come to an end until we let it."""
    go_on, hashing = threading.Event(), threading.Semaphore(0)
    verify = PasswordHasher.verify

    def slow(self: PasswordHasher, *arguments: str) -> bool:
        hashing.release()
        assert go_on.wait(60)
        return verify(self, *arguments)

    with patch.object(PasswordHasher, "verify", slow):
        crowd = asyncio.create_task(sign_in_together(house))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await asyncio.to_thread(hashing.acquire)
                while house.parts.passwords._waiting.total() < LOGINS:
                    await asyncio.sleep(0.01)
                assert (await house.http().get("/healthz")).status_code == 200
                assert (await house.browser().get("/login")).status_code == 200
                assert (await client.refresh(token)).status_code == 200
            assert not crowd.done()
        finally:
            go_on.set()
        assert await crowd == [303] * LOGINS


async def test_the_event_loop_goes_on_while_argon2_computes(house: House) -> None:
    """It would turn a few times for each login and no more if hashing held it up, or Python's lock."""
    verify = PasswordHasher.verify
    threads: list[str] = []

    def watched(self: PasswordHasher, *arguments: str) -> bool:
        threads.append(threading.current_thread().name)
        return verify(self, *arguments)

    with patch.object(PasswordHasher, "verify", watched):
        crowd, turns = asyncio.create_task(sign_in_together(house)), 0
        while not crowd.done():
            await asyncio.sleep(0.001)
            turns += 1
    assert crowd.result() == [303] * LOGINS
    assert len(threads) == LOGINS
    assert all(name.startswith("argon2") for name in threads)
    assert turns > 20 * LOGINS


def test_a_password_is_hashed_with_the_parameters_of_rfc_9106(house: House) -> None:
    found = house.parts.store.users.by_email(EMAIL)
    assert found
    assert found[1].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert PasswordHasher().verify(found[1], PASSWORD)
