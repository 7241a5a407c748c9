"""Who is calling: the token of a request, and what becomes of one that does not hold."""

from libs.common.clock import iso, now
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AuthEvent
from libs.common.throttle import EventBudget, source_of
from libs.common.tokens import Claims, InvalidToken, Verifier
from services.gateway import metadata
from services.gateway.asgi import Send, respond
from services.gateway.settings import GatewaySettings

# Refused tokens recorded per address and minute. Nobody without an account may fill the journal.
EVENTS_PER_MINUTE = 30


_BODY = b'{"error":"invalid_token","error_description":"Sign in: see WWW-Authenticate"}'


class Unauthenticated(Exception):
    """There is no valid token. `error` and `description` (RFC 6750, section 3.1) are empty without any."""

    def __init__(self, error: str = "", description: str = "") -> None:
        super().__init__(description or "no token")
        self.error, self.description = error, description


class Authenticator:
    """Checks access tokens for one replica."""

    def __init__(self, settings: GatewaySettings, verifier: Verifier, journal: Journal) -> None:
        self._settings, self._verifier, self._journal = settings, verifier, journal
        self._budget = EventBudget(EVENTS_PER_MINUTE, name="token_refused")

    def authenticate(self, authorization: bytes, server: str, address: str) -> Claims:
        """The claims of the bearer token. Raises `Unauthenticated`; a token that was refused is recorded."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise Unauthenticated
        wanted = metadata.resource(self._settings, server), metadata.gateway_resource(self._settings)
        try:
            return self._verifier.verify(token.strip().decode("ascii", "replace"), *wanted)
        except InvalidToken as error:
            raise self.refuse(error, server, address) from error

    def refuse(
        self, error: InvalidToken, server: str, address: str, claims: Claims | None = None
    ) -> Unauthenticated:
        """Record a token that does not hold, and say what to tell its bearer."""
        if self._budget.spend(source_of(address)):
            event = AuthEvent(
                id=new_id(),
                time=iso(now()),
                event="token_refused",
                outcome="refused",
                reason=error.reason,
                server=server,
                address=address,
            )
            if claims:
                event.user, event.grant = claims.subject, claims.grant
                event.client_id, event.client_name = claims.client_id, claims.client_name
            self._journal.append(event)
        expired = error.reason == "token_expired"
        return self.unauthenticated("the token has expired" if expired else "the token is not valid here")

    def unauthenticated(self, description: str) -> Unauthenticated:
        """For a token that does not hold, or no longer."""
        return Unauthenticated("invalid_token", description)

    async def turn_away(self, send: Send, error: Unauthenticated, path: str) -> None:
        """Answer a request to `path`: where to sign in."""
        challenge = metadata.challenge(self._settings, path, error.error, error.description)
        await respond(send, 401, _BODY, [(b"www-authenticate", challenge)])
