"""What a server asks of a client (pure).

Before 2026-07-28 it sends requests of its own; since then it puts them into a result, and the client repeats
its request with the answers (2026-07-28, basic/patterns/mrtr, called mrtr below).
"""

import hashlib
import json
from typing import Any

import msgspec

from services.gateway.eras import failures
from services.gateway.eras.translation import RETRY, elements, inner, meta_of, raw, with_meta, without
from services.gateway.messages import Members, NotAMessage, joined, members, text
from services.gateway.protocol import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY

# What may be asked -> the capability that a client declares for it.
CAPABILITIES = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


def may_be_asked(capabilities: bytes) -> bool:
    """Whether a client with `capabilities` answers anything that a server asks."""
    return not members(capabilities).keys().isdisjoint(CAPABILITIES.values())


def refuse_undeclared(method: str, params: bytes, capabilities: bytes) -> None:
    """Raise `RequestFailed` for a question to which a client with `capabilities` has no answer.

    An `elicitation` capability without a mode means forms (client/elicitation "Capabilities").
    """
    name = CAPABILITIES.get(method)
    declared = members(capabilities)
    if name is None or name not in declared:
        raise failures.failed(METHOD_NOT_FOUND, f"the client does not support {method}")
    if name == "elicitation":
        modes = inner(declared, name)
        mode = _mode(params)
        if not (mode in modes or (mode == "form" and "url" not in modes)):
            raise failures.failed(INVALID_PARAMS, f"the client does not support elicitation by {mode}")


def _mode(params: bytes) -> str:
    return text(members(params).get("mode")) or "form"


def modern_question(method: str, params: bytes) -> bytes:
    """A server-initiated request as a value of `inputRequests`.

    It has no id, no progress and no task, and a URL no `elicitationId` (changelog, minor change 11).
    """
    parts = without(members(params), "task")
    parts = with_meta(parts, without(meta_of(params), "progressToken"))
    if method == "elicitation/create" and _mode(params) == "url":
        parts = without(parts, "elicitationId")
    question = {"method": raw(method)}
    return joined(question | {"params": msgspec.Raw(joined(parts))} if params else question)


def legacy_question(id: bytes, question: bytes, elicitation: str) -> bytes:
    """A value of `inputRequests` as a server-initiated request.

    `elicitation` names one by URL, which needs a name (2025-11-25, client/elicitation "URL Mode").
    """
    parts = members(question)
    if text(parts.get("method")) == "elicitation/create":
        params = inner(parts, "params")
        if text(params.get("mode")) == "url":
            params.setdefault("elicitationId", raw(elicitation))
            parts["params"] = msgspec.Raw(joined(params))
    # What would make it another request, or the answer to one of the client's, is not the server's to say.
    return joined(without(parts, "result", "error") | {"jsonrpc": raw("2.0"), "id": msgspec.Raw(id)})


def input_required(questions: Members, state: str = "") -> bytes:
    """The result that asks (mrtr "InputRequiredResult"). `questions` are as `modern_question` gives them."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": questions}
    return msgspec.json.encode(result | {"requestState": state} if state else result)


def retry(request: bytes, id: bytes, answers: Members | None, state: bytes | None) -> bytes:
    """A modern request again, with the answers and the state of the result before, if that had any."""
    message = members(request)
    params = without(inner(message, "params"), *RETRY)
    if answers is not None:
        params["inputResponses"] = msgspec.Raw(joined(answers))
    if state is not None:
        params["requestState"] = msgspec.Raw(state)
    return joined(message | {"id": msgspec.Raw(id), "params": msgspec.Raw(joined(params))})


def answers_of(params: bytes) -> Members:
    """The `inputResponses` of a retry, each an object. Raises `RequestFailed`."""
    try:
        answers = inner(members(params), "inputResponses")
        for answer in answers.values():
            members(answer)
    except NotAMessage:
        detail = '"inputResponses" must be an object of objects'
        raise failures.failed(INVALID_PARAMS, detail) from None
    return answers


def declined(answers: Members) -> bool:
    """Whether the user declined or dismissed an elicitation (client/elicitation "Response Actions")."""
    return any(text(members(answer).get("action")) in {"decline", "cancel"} for answer in answers.values())


def required_urls(error: bytes, capabilities: bytes) -> bytes:
    """The modern result for a legacy `URLElicitationRequiredError`, which modern servers say by asking.

    Nothing is held for it: the retry is a call like the first. Raises `RequestFailed` for a client that opens
    no URLs (-32021, basic/index), or if the error names none.
    """
    questions = {}
    data = inner(members(error), "data")
    for number, params in enumerate(elements(data.get("elicitations", b"[]")), 1):
        url = joined(members(params) | {"mode": raw("url")})
        questions[str(number)] = msgspec.Raw(modern_question("elicitation/create", url))
    if not questions:
        raise failures.RequestFailed(failures.modern_error(error))
    if "url" not in inner(members(capabilities), "elicitation"):
        needed: dict[str, Any] = {"requiredCapabilities": {"elicitation": {"url": {}}}}
        detail = "the server needs the user to open a URL first, which this client does not support"
        raise failures.failed(MISSING_CAPABILITY, detail, needed)
    return input_required(questions)


def subject_digest(method: str, params: bytes) -> bytes:
    """Names a request, first or retry, whatever the spelling of its JSON.

    A state is good only for the request that it was made for (mrtr "Server Requirements").
    """
    subject = joined(without(members(params), "_meta", *RETRY))
    decoded = json.loads(subject, parse_int=lambda digits: ["integer", digits])  # of any length
    canonical = json.dumps([method, decoded], sort_keys=True)
    return hashlib.sha256(canonical.encode()).digest()
