"""Who is calling: the token of a request, and what becomes of one that does not hold."""

from libs.common.clock import iso, now
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AuthEvent
from libs.common.throttle import EventBudget, source_of
from libs.common.tokens import Claims, InvalidToken, Verifier
from services.gateway import metadata
from services.gateway.settings import GatewaySettings

# Refused tokens recorded per address and minute. Nobody without an account may fill the journal.
EVENTS_PER_MINUTE = 30


class NotAdmitted(Exception):
    """There is no valid token; `challenge` is the value of `WWW-Authenticate`."""

    def __init__(self, challenge: bytes) -> None:
        super().__init__("no valid token")
        self.challenge = challenge


class Doorway:
    """Checks access tokens for one replica."""

    def __init__(self, settings: GatewaySettings, verifier: Verifier, journal: Journal) -> None:
        self._settings, self._verifier, self._journal = settings, verifier, journal
        self._budget = EventBudget(EVENTS_PER_MINUTE, name="token_refused")

    def admit(self, authorization: bytes, server: str, address: str) -> Claims:
        """The claims of the bearer token. Raises `NotAdmitted`; a token that was refused is recorded."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise NotAdmitted(metadata.challenge(self._settings, server))
        wanted = metadata.resource(self._settings, server), metadata.gateway_resource(self._settings)
        try:
            return self._verifier.verify(token.strip().decode("ascii", "replace"), *wanted)
        except InvalidToken as error:
            raise self.refuse(error, server, address) from error

    def refuse(
        self, error: InvalidToken, server: str, address: str, claims: Claims | None = None
    ) -> NotAdmitted:
        """Record a token that does not hold, and make the challenge for it."""
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
        return self.not_admitted(
            "the token has expired" if expired else "the token is not valid here", server
        )

    def not_admitted(self, description: str, server: str) -> NotAdmitted:
        """The challenge for a token that does not hold, or no longer."""
        return NotAdmitted(metadata.challenge(self._settings, server, "invalid_token", description))
