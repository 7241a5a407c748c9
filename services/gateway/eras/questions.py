"""What a modern upstream asks, put to a legacy client as requests of the server."""

import asyncio
import itertools
from uuid import uuid4

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.eras import failures, inputs
from services.gateway.eras.translation import raw
from services.gateway.links.port import Emit
from services.gateway.messages import Members, Message, members, text

MOST_OPEN = 64  # questions of one request


class Questions:
    """The questions that are open in one session. `within` is how long a client has, in seconds."""

    def __init__(self, on_message: Emit, within: float) -> None:
        self._on_message, self._within = on_message, within
        self._open: dict[bytes, asyncio.Future[msgspec.Raw]] = {}
        self._numbers = itertools.count(1)

    async def ask(self, questions: Members, capabilities: bytes) -> Members:
        """The client's answers to the values of `inputRequests`, by the same keys.

        Raises `UpstreamFailed` for too many, `RequestFailed` if the client does not support what is asked,
        answers with an error, or not in time. What nobody waits for any more is cancelled (2025-11-25,
        basic/utilities/cancellation).
        """
        if len(questions) > MOST_OPEN:
            raise UpstreamFailed("upstream_bad_answer", f"it asks more than {MOST_OPEN} questions at once")
        for question in questions.values():
            parts = members(question)
            inputs.refuse_undeclared(text(parts.get("method")), bytes(parts.get("params", b"")), capabilities)
        ids = {key: bytes(raw(f"lockgate-{next(self._numbers)}")) for key in questions}
        try:
            answers = [self._put(ids[key], bytes(question)) for key, question in questions.items()]
            async with asyncio.timeout(self._within):
                return dict(zip(questions, await asyncio.gather(*answers), strict=True))
        except TimeoutError:
            detail = f"the client did not answer what the server asked within {self._within:g} s"
            raise failures.failed(failures.INPUT_TIMED_OUT, detail) from None
        finally:
            for id in ids.values():
                self._withdraw(id)

    def answered(self, response: Message) -> None:
        """The client's response to one of them; to anything else, nothing."""
        answer = self._open.pop(response.id, None)
        if answer is None or answer.done():
            return
        if error := failures.error_of(response):
            answer.set_exception(failures.RequestFailed(error))
        else:
            answer.set_result(msgspec.Raw(response.result))

    def _put(self, id: bytes, question: bytes) -> "asyncio.Future[msgspec.Raw]":
        answer = self._open[id] = asyncio.get_running_loop().create_future()
        self._on_message(inputs.legacy_question(id, question, elicitation=uuid4().hex))
        return answer

    def _withdraw(self, id: bytes) -> None:
        answer = self._open.pop(id, None)
        if answer is not None:
            answer.cancel()
            self._on_message(messages.cancelled(id, "the request that it was asked for is over"))
