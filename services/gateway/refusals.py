"""A refusal, and how it is sent.

Policy decisions on a request are JSON-RPC errors with status 200, which every client shows to its user; 403
would make clients look for another scope, which cannot help. Status codes are used where the protocol gives
them a meaning: 400 malformed, 401 token, 404 unknown server or session, 413 and 431 size, 429 too much at
once, 503 with Retry-After.
Codes of our own lie outside -32768…-32000 (JSON-RPC 2.0, section 5.1).
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.gateway import messages
from services.gateway.asgi import Send, respond
from services.gateway.elicitation import Elicitation, Manner
from services.gateway.protocol import URL_ELICITATION_REQUIRED

DENIED = -31403
UNKNOWN_SERVER = -31404
CREDENTIAL_MISSING = -31428
UPSTREAM_FAILED = -31502
UNAVAILABLE = -31503


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the caller is told. `code` is the JSON-RPC code; `reason` and `rule` say why and by what."""

    status: int
    code: int
    message: str
    reason: str
    rule: str = ""
    revision: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    retry_after: int | None = None  # seconds, where that is known
    url: str = ""  # where the caller can do something about it
    elicitation: Elicitation | None = None  # how their client can bring them there


def body(refusal: Refusal, id: bytes) -> bytes:
    """The JSON-RPC error response (JSON-RPC 2.0, section 5.1), or the result that asks the person to do
    something first. `id` is the request's, as raw JSON."""
    asking, code = refusal.elicitation, refusal.code
    if asking and asking.manner == "result":
        return messages.result(id, msgspec.Raw(asking.result()))
    data: dict[str, Any] = {"reason": refusal.reason, "decidedBy": "lockgate"}
    if refusal.rule:
        data["rule"] = refusal.rule
    if refusal.retry_after is not None:  # some lanes have no headers of an answer
        data["retryAfter"] = refusal.retry_after
    if refusal.url:
        data["url"] = refusal.url
    if asking:
        code, data = URL_ELICITATION_REQUIRED, data | asking.error_data()
    error = {"code": code, "message": refusal.message, "data": data | {"revision": refusal.revision}}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": msgspec.Raw(id), "error": error})


# reason -> (status of a request, JSON-RPC code). A message that awaits no answer gets 403 for 200.
_BY_REASON = {
    "lease_expired": (503, UNAVAILABLE),
    "journal_unavailable": (503, UNAVAILABLE),
    "credential_unavailable": (503, UNAVAILABLE),
    "organization_disabled": (200, DENIED),
    "user_disabled": (200, DENIED),
    "group_disabled": (200, DENIED),
    "client_disabled": (200, DENIED),
    "server_unknown": (404, UNKNOWN_SERVER),
    "server_not_allowed": (404, UNKNOWN_SERVER),
    "server_disabled": (200, DENIED),
    "tool_denied": (200, DENIED),
    "prompt_denied": (200, DENIED),
    "resource_denied": (200, DENIED),
    "tool_disabled": (200, DENIED),
    "tool_quarantined": (200, DENIED),
    "tool_unreviewed": (200, DENIED),
    "rule_denied": (200, DENIED),
    "rule_failed": (200, DENIED),
    "quota_exceeded": (429, DENIED),
    "quota_unavailable": (503, UNAVAILABLE),
    "credential_missing": (200, CREDENTIAL_MISSING),
    "credential_attention": (200, CREDENTIAL_MISSING),
    "session_foreign": (404, -32600),
    "session_lost": (404, -32600),
    "too_many_calls": (429, DENIED),
    "too_many_streams": (429, DENIED),
    "upstream_unreachable": (502, UPSTREAM_FAILED),
    "upstream_timeout": (504, UPSTREAM_FAILED),
    "upstream_broke_off": (502, UPSTREAM_FAILED),
    "upstream_bad_answer": (502, UPSTREAM_FAILED),
    "upstream_unauthorized": (502, UPSTREAM_FAILED),
    "upstream_busy": (503, UPSTREAM_FAILED),
    "upstream_down": (503, UPSTREAM_FAILED),
    "stdio_disabled": (502, UPSTREAM_FAILED),
    "cancelled": (502, UPSTREAM_FAILED),  # the session ended, while something of it was on its way
}
_RETRY_LATER = {429, 503}
# What ends when somebody connects a credential.
_CONNECTABLE = {"credential_missing", "credential_attention", "upstream_unauthorized"}
# What a client can be asked to have done first. Not where the credential was good a moment ago.
CONNECT_FIRST = {"credential_missing", "credential_attention"}


def needs_no_body(reason: str) -> bool:
    """Whether the answer says all by its status, so that the request's id is not needed for it."""
    return reason not in _BY_REASON or _BY_REASON[reason][0] != 200


def refusal(
    reason: str,
    server: str,
    detail: str,
    *,
    rule: str = "",
    revision: int = 0,
    answered: bool = True,
    retry_after: int | None = None,
    origin: str = "",
    manner: Manner | None = None,
) -> Refusal:
    """The refusal for `reason`. `answered`: the message is a request, so an answer can carry the error.
    `origin` is the public one, under which people find the pages; `manner` how a client can be asked to open
    one."""
    status, code = _BY_REASON[reason]
    hidden = reason in {"server_unknown", "server_not_allowed"}
    if hidden:  # the same answer for both, byte for byte
        message = f"Unknown server: {server}. Check its URL, or ask an administrator for access."
        reason, rule, revision = "server_unknown", "", 0
    else:
        message = f"Lockgate: {server}: {detail}"
    url = f"{origin}/credentials/servers/{server}" if origin and reason in _CONNECTABLE else ""
    asking = None
    if url and manner and reason in CONNECT_FIRST:
        asking = Elicitation(manner, url, f"{message}. Connect your account, then go on.")
    if url:
        message += f". Connect it at {url}"
    if status == 200 and not answered:
        status = 403
    retry = [(b"retry-after", b"%d" % (retry_after or 1))] if status in _RETRY_LATER else []
    return Refusal(status, code, message, reason, rule, revision, retry, retry_after, url, asking)


async def answer(send: Send, refusal: Refusal, id: bytes) -> None:
    """Send `refusal` as the answer to the request `id` (raw JSON)."""
    await respond(send, refusal.status, body(refusal, id), refusal.headers)
