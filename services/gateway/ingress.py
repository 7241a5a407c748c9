"""Where MCP requests come in, whatever the lane. Who may not come in is turned away here."""

from functools import partial

from services.gateway import refusals
from services.gateway.asgi import Gone, Receive, Scope, Send
from services.gateway.authentication import Unauthenticated
from services.gateway.bridge.exchange import Front
from services.gateway.bridge.gate import Arrival, Gate
from services.gateway.bridge.sse_front import session_of
from services.gateway.metadata import path_of
from services.gateway.passage import Passage
from services.gateway.refusals import Refusal
from services.gateway.ticket import Caller, Shared

_FOREIGN_ORIGIN = Refusal(
    403, refusals.DENIED, "Lockgate: pages of this origin may not call", "origin_not_allowed"
)


class Ingress:
    """An ASGI application for `/mcp`, `/mcp/{server}` and both with `/sse` behind it."""

    def __init__(self, shared: Shared, gate: Gate) -> None:
        self._shared, self._gate = shared, gate

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, server: str, front: Front = "http"
    ) -> None:
        """`server` is empty for the gateway as a whole."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in self._shared.settings.origins:
            # Not worth a record: a browser sent it without anybody's token.
            await refusals.answer(send, _FOREIGN_ORIGIN, b"null")
            return
        client = scope.get("client")
        address = str(client[0]) if client else ""
        authenticator = self._shared.authenticator
        try:
            claims = authenticator.authenticate(headers.get(b"authorization", b""), server, address)
            protocol = headers.get(b"mcp-protocol-version", b"").decode("latin-1").strip()
            session = session_of(scope) if front == "sse" else headers.get(b"mcp-session-id", b"").strip()
            caller = Caller(claims, address, protocol, session)
            arrival = Arrival(scope, receive, send, server, front, caller)
            divert = partial(self._gate.divert, arrival)
            await Passage(
                self._shared, scope, receive, send, server=server, caller=caller, divert=divert
            ).run()
        except Unauthenticated as error:
            await authenticator.turn_away(send, error, path_of(server, sse=front == "sse"))
        except Gone:
            return
