"""The transparent lane: Streamable HTTP on both sides. Who may not come in is turned away here."""

from services.gateway import refusals
from services.gateway.asgi import Receive, Scope, Send, respond
from services.gateway.doorway import NotAdmitted
from services.gateway.passage import Gone, Passage
from services.gateway.refusals import Refusal
from services.gateway.ticket import Caller, Shared

_NOT_SIGNED_IN = b'{"error":"invalid_token","error_description":"Sign in: see WWW-Authenticate"}'
_FOREIGN_ORIGIN = Refusal(
    403, refusals.DENIED, "Lockgate: pages of this origin may not call", "origin_not_allowed"
)


class Lane:
    """An ASGI application for `/mcp/{server}`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send, server: str) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in self._shared.settings.origins:
            # Not worth a record: a browser sent it without anybody's token.
            await refusals.answer(send, _FOREIGN_ORIGIN, b"null")
            return
        client = scope.get("client")
        address = str(client[0]) if client else ""
        try:
            claims = self._shared.doorway.admit(headers.get(b"authorization", b""), server, address)
            protocol = headers.get(b"mcp-protocol-version", b"").decode("latin-1").strip()
            session = headers.get(b"mcp-session-id", b"").strip()
            caller = Caller(claims, address, protocol, session)
            await Passage(self._shared, scope, receive, send, server=server, caller=caller).run()
        except NotAdmitted as error:
            await respond(send, 401, _NOT_SIGNED_IN, [(b"www-authenticate", error.challenge)])
        except Gone:
            return
