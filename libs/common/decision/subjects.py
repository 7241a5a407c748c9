"""What a request acts on: tools, prompts and resources, found in its parameters (pure)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["tool", "prompt", "resource"]

# The longest that are taken, in characters; tool names are at most 128 by the specification.
LONGEST: dict[Kind, int] = {"tool": 256, "prompt": 256, "resource": 4096}
# Each is decided on, at the request and at every change while the stream is open.
MOST = 256
# The methods whose params hold `arguments`, of the tool or prompt, that conditions may read.
WITH_ARGUMENTS = frozenset({"tools/call", "prompts/get"})

# The method by which one of a kind is used.
USE: dict[Kind, str] = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}


@dataclass(frozen=True, slots=True)
class Subject:
    """`name` is that of the tool or prompt, or the URI (or URI template) of the resource."""

    kind: Kind
    name: str


class Unnamed(Exception):
    """The parameters do not name what the method acts on; the message is for the caller."""


# Decoded params -> (subject kind, what stands there, where it stands).
_Found: TypeAlias = Iterator[tuple[Kind, object, str]]


def subjects_of(method: str, params: dict[str, Any]) -> tuple[Subject, ...]:
    """The subjects of `method`; none for methods that act on nothing named. Raises `Unnamed`."""
    find = _FINDERS.get(method)
    if find is None:
        return ()
    subjects = tuple(_subject(method, *found) for found in find(params))
    if len(subjects) > MOST:
        raise Unnamed(f"{method} names more than {MOST} resources")
    return subjects


def _subject(method: str, kind: Kind, name: object, field: str) -> Subject:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST[kind]:
        raise Unnamed(f'{method} needs a "{field}" of at most {LONGEST[kind]} characters in its params')
    return Subject(kind, name)


def _tool(params: dict[str, Any]) -> _Found:
    yield "tool", params.get("name"), "name"


def _prompt(params: dict[str, Any]) -> _Found:
    yield "prompt", params.get("name"), "name"


def _resource(params: dict[str, Any]) -> _Found:
    yield "resource", params.get("uri"), "uri"


def _subscription(params: dict[str, Any]) -> _Found:
    """Nothing where nothing is named: 2026-07-28 has no such method, and it is the upstream that says so."""
    if "uri" in params:
        yield from _resource(params)


def _reference(params: dict[str, Any]) -> _Found:
    """What a completion is for. Resources are named by URI or template (MCP, server/utilities/completion)."""
    reference = params.get("ref")
    if not isinstance(reference, dict):
        raise Unnamed('completion/complete needs an object "ref" in its params')
    if reference.get("type") == "ref/prompt":
        yield "prompt", reference.get("name"), "ref.name"
    elif reference.get("type") == "ref/resource":
        yield "resource", reference.get("uri"), "ref.uri"
        if "uriTemplate" in reference:
            yield "resource", reference["uriTemplate"], "ref.uriTemplate"
    else:
        raise Unnamed('the "type" of a completion\'s "ref" must be "ref/prompt" or "ref/resource"')


def _subscriptions(params: dict[str, Any]) -> _Found:
    """The resources whose updates a stream is asked for (MCP 2026-07-28, basic/patterns/subscriptions)."""
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        return  # the upstream says what is wrong with it
    uris = wanted.get("resourceSubscriptions")
    if uris is None:
        return
    if not isinstance(uris, list):
        raise Unnamed('"resourceSubscriptions" must be a list of URIs')
    for uri in uris:
        yield "resource", uri, "notifications.resourceSubscriptions"


_FINDERS: dict[str, Callable[[dict[str, Any]], _Found]] = {
    "tools/call": _tool,
    "prompts/get": _prompt,
    "resources/read": _resource,
    "resources/subscribe": _subscription,
    "resources/unsubscribe": _subscription,
    "completion/complete": _reference,
    "subscriptions/listen": _subscriptions,
}
