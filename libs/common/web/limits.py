"""A limit on the bodies of requests.

A framework reads a whole body before it asks who sent it, so without a limit anybody could fill the memory.
"""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.errors import LockgateError, problem

BODY_LIMIT = 256 * 1024  # bytes; no form and no document of the console's APIs is larger


class TooLarge(LockgateError):
    status, type, title = 413, "too-large", "The body of the request is too large"


class BodyLimit:
    """ASGI middleware: a body of more than `limit` bytes is answered with 413 (problem details, RFC 9457).

    One that says its length is refused before anything of it is read, one in chunks as soon as it is over.
    """

    def __init__(
        self, app: ASGIApp, limit: int = BODY_LIMIT, larger: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """`larger` has the limits of paths that take more."""
        self._app, self._limit, self._larger = app, limit, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope.get("path", ""), self._limit)
        if _declared(scope) > limit or await self._counted(scope, receive, send, limit):
            await problem(TooLarge(f"At most {limit} bytes are taken here."))(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send, limit: int) -> bool:
        """Run the app. Whether the body turned out too large while the answer had not begun: then whatever
        the app made of that is not sent."""
        received, too_large, started = 0, False, False

        async def counting() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                too_large = True
                raise HTTPException(413)  # an error that frameworks let pass
            return message

        async def sending(message: Message) -> None:
            nonlocal started
            if too_large and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counting, sending)
        except HTTPException:
            if started or not too_large:
                raise
        return too_large and not started


def _declared(scope: Scope) -> int:
    """The body's length as the request says it; 0 when it does not. The server has checked its form."""
    value = Headers(scope=scope).get("content-length", "")
    return int(value) if value.isdecimal() else 0
