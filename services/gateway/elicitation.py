"""Asks whoever is behind a client to open a page, where their client can: elicitation by URL.

2025-11-25 (client/elicitation): an error that names the page. 2026-07-28 (basic/patterns/mrtr): a result that
asks, after which the client makes its request again, which is decided anew.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from libs.common.ids import new_id
from services.gateway.envelope import Envelope
from services.gateway.messages import NotAMessage, members, text
from services.gateway.protocol import LEGACY, MAY_ASK, META_CAPABILITIES

Manner: TypeAlias = Literal["error", "result"]

KEY = "lockgate-connect"  # of our question among those of a result
SINCE = LEGACY[-1]  # the first revision that has it
# Seconds for which a call that is made again waits for the person. Clients ask once more then, and some give
# up after ten times; what stands between often waits for a minute.
WITHIN = 50.0


@dataclass(frozen=True, slots=True)
class Elicitation:
    """A page to open. `message` is for the person, and says why; it must not hold a URL."""

    manner: Manner
    url: str
    message: str

    def error_data(self) -> dict[str, Any]:
        """The data of the error `URLElicitationRequired`."""
        return {"elicitations": [self._params() | {"elicitationId": new_id()}]}

    def result(self) -> bytes:
        """The result that asks."""
        question = {"method": "elicitation/create", "params": self._params()}
        return msgspec.json.encode({"resultType": "input_required", "inputRequests": {KEY: question}})

    def _params(self) -> dict[str, str]:
        return {"mode": "url", "url": self.url, "message": self.message}


def manner_for(envelope: Envelope | None, *, opens_urls: bool) -> Manner | None:
    """How to ask in the answer to `envelope`; None if that cannot be. `opens_urls`: the client of its session
    does, in the era that has sessions."""
    if envelope is None or envelope.kind != "request":
        return None
    if not envelope.modern:
        return "error" if opens_urls or declares(envelope) else None
    try:
        params = members(envelope.params)
        capabilities = members(params.get("_meta", b"")).get(META_CAPABILITIES, b"")
        can = envelope.method in MAY_ASK and _opens_urls(capabilities)
        return "result" if can and _action(envelope) in {"", "accept"} else None
    except NotAMessage:
        return None


def declares(envelope: Envelope) -> bool:
    """Whether this is the `initialize` of a client that opens URLs."""
    if envelope.method != "initialize":
        return False
    try:
        params = members(envelope.params)
        return text(params.get("protocolVersion")) >= SINCE and _opens_urls(params.get("capabilities", b""))
    except NotAMessage:
        return False


def accepted(envelope: Envelope | None) -> bool:
    """Whether this is a request made again after our question, to which the person has agreed: they may still
    be at it."""
    try:
        return envelope is not None and envelope.modern and _action(envelope) == "accept"
    except NotAMessage:
        return False


def _opens_urls(capabilities: bytes) -> bool:
    """An `elicitation` capability without a mode means forms (client/elicitation "Capabilities")."""
    return "url" in members(members(capabilities).get("elicitation", b""))


def _action(envelope: Envelope) -> str:
    """What the person did about our question; empty if they were not asked."""
    if b"inputResponses" not in envelope.params:
        return ""
    answers = members(members(envelope.params).get("inputResponses", b""))
    return text(members(answers[KEY]).get("action")) or "cancel" if KEY in answers else ""
