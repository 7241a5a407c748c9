"""Passwords: Argon2id with the parameters of RFC 9106, in threads of its own and never many at once."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from libs.common.errors import Unavailable
from libs.common.ids import new_secret
from services.auth.domain import PASSWORD_LENGTH, WeakPassword, check_password

AT_ONCE = 2  # each takes 64 MiB and some 50 ms of a few cores
WAITING = 64
# Of these places, so many are for strangers, and so many for one stranger: nobody keeps out all the others.
STRANGERS_WAITING = 48
ONE_STRANGER_WAITING = 16

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`new_hash` is set when the password is right and its hash was made with older parameters."""

    right: bool
    new_hash: str | None = None


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._threads = ThreadPoolExecutor(AT_ONCE, "argon2")
        self._waiting: Counter[str] = Counter()  # per stranger; those who are none under the empty name
        self._nobodys = ""

    async def start(self) -> None:
        self._nobodys = await self.hash(new_secret())

    async def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Raises `WeakPassword`."""
        try:
            check_password(password)
        except ValueError as error:
            raise WeakPassword(f"A password {error}.") from error
        with self._place():
            return await self._in_thread(self._hasher.hash, password)

    async def verify(self, password_hash: str | None, password: str, stranger: str = "") -> Verdict:
        """Whether `password` belongs to `password_hash`. Takes as long for None, the hash of nobody.

        `stranger` is the address of somebody about whom nothing is known yet, and empty for others. Raises
        `Unavailable` when too many wait already, without having looked at the password.
        """
        with self._place(stranger):
            return await self._in_thread(self._verify, password_hash, password)

    def _verify(self, password_hash: str | None, password: str) -> Verdict:
        password = password[: PASSWORD_LENGTH.stop]
        try:
            self._hasher.verify(password_hash or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return Verdict(False)
        if password_hash is None:
            return Verdict(False)
        outdated = self._hasher.check_needs_rehash(password_hash)
        return Verdict(True, self._hasher.hash(password) if outdated else None)

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))

    @contextmanager
    def _place(self, stranger: str = "") -> Iterator[None]:
        """A place in the queue. Raises `Unavailable` when there is none."""
        waiting = self._waiting
        strangers = waiting.total() - waiting[""]
        if waiting.total() >= WAITING or (
            stranger and (strangers >= STRANGERS_WAITING or waiting[stranger] >= ONE_STRANGER_WAITING)
        ):
            raise Unavailable("Too many people are signing in at this moment.", headers={"Retry-After": "5"})
        waiting[stranger] += 1
        try:
            yield
        finally:
            waiting[stranger] -= 1
            if not waiting[stranger]:
                del waiting[stranger]
