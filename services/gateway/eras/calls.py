"""A request that runs in a legacy session on behalf of a modern client."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from services.gateway.connection import UpstreamFailed
from services.gateway.eras import inputs
from services.gateway.links.port import Emit


class Ear(NamedTuple):
    """Who hears what a call tells on its way.

    `token` is the progress token (raw JSON) that they gave, `level` the least severe log message that they
    want; empty for none.
    """

    emit: Emit
    token: bytes = b""
    level: str = ""


@dataclass(eq=False)
class Question:
    """A request of the server: its id (raw JSON), until it is answered or withdrawn."""

    id: bytes
    method: str
    params: bytes
    open: bool = True

    def encoded(self) -> bytes:
        """As a value of `inputRequests`."""
        return inputs.modern_question(self.method, self.params)


class Call:
    """One request, from its sending until it is over: with a `response` (raw), or with a `failure`.

    `ear` is None while nobody listens. `left`: it was sent, as far as we know.
    """

    def __init__(self, id: bytes, method: str, ear: Ear | None, on_over: Callable[[], None]) -> None:
        self.id, self.method, self.ear = id, method, ear
        self.response, self.failure = b"", None  # type: bytes, UpstreamFailed | None
        self.over = self.left = False
        self.sending: asyncio.Task[None] | None = None
        self._on_over = on_over
        self._questions: dict[str, Question] = {}
        self._asked = 0
        self._news = asyncio.Event()

    async def turn(self) -> None:
        """Wait until it is over, or asks something."""
        while not self.over and not self.questions:
            self._news.clear()
            await self._news.wait()

    @property
    def questions(self) -> dict[str, Question]:
        """Those that are open, by the keys under which the client answers them."""
        return {key: question for key, question in self._questions.items() if question.open}

    def ask(self, question: Question) -> None:
        self._asked += 1
        self._questions = self.questions | {str(self._asked): question}
        self._news.set()

    def end(self, response: bytes = b"", failure: UpstreamFailed | None = None) -> None:
        """It is over, which it is only once."""
        if not self.over:
            self.over, self.response, self.failure = True, response, failure
            self._news.set()
            self._on_over()
