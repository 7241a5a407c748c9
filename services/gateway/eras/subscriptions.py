"""Changes of lists and resources (pure).

A legacy server tells them to its sessions (2025-11-25, server/resources "Subscriptions"), a modern one on a
stream that is asked for by `subscriptions/listen` (2026-07-28, basic/patterns/subscriptions).
"""

from typing import Any, NamedTuple

import msgspec

from services.gateway import messages
from services.gateway.eras.translation import inner, with_meta, without
from services.gateway.messages import Members, Message, NotAMessage, joined, members, text
from services.gateway.protocol import ACKNOWLEDGED, LIST_CHANGES, META_SUBSCRIPTION

UPDATED = "notifications/resources/updated"
CHANGES = {UPDATED, *LIST_CHANGES.values()}
# A filter's member in subscriptions/listen -> the capability that stands for it.
_CAPABILITIES = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}


class Filter(NamedTuple):
    """What is asked for: members of a filter that name lists, and resources."""

    lists: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()

    def encoded(self) -> dict[str, Any]:
        """As the specification writes it ("Notification Filter")."""
        lists = dict.fromkeys(sorted(self.lists), True)
        return lists | ({"resourceSubscriptions": sorted(self.uris)} if self.uris else {})

    def wants(self, notification: Message) -> bool:
        """Whether it asks for `notification`; one about a part of a resource is one about it."""
        if notification.method == UPDATED:
            uri = text(members(notification.params).get("uri"))
            return any(uri.startswith(wanted) for wanted in self.uris)
        return any(LIST_CHANGES[name] == notification.method for name in self.lists)


def filter_of(encoded: bytes) -> Filter:
    """The filter of a request or of an acknowledgement. Raises `NotAMessage`."""
    parts = members(encoded)
    lists = frozenset(name for name in LIST_CHANGES if bytes(parts.get(name, b"")) == b"true")
    try:
        uris = msgspec.json.decode(parts.get("resourceSubscriptions", b"[]"), type=list[str] | None)
    except messages.UNREADABLE as error:
        raise NotAMessage(f"resourceSubscriptions: {error}") from error
    return Filter(lists, frozenset(uris or ()))


def announced_lists(capabilities: bytes) -> frozenset[str]:
    """The members of a filter for the lists whose changes a server with `capabilities` says it tells."""
    parts = members(capabilities)
    return frozenset(
        name
        for name, capability in _CAPABILITIES.items()
        if bytes(inner(parts, capability).get("listChanged", b"")) == b"true"
    )


def possible_lists(capabilities: bytes) -> frozenset[str]:
    """The same for all lists that the server has: the official SDK tells more than it announces."""
    parts = members(capabilities)
    return frozenset(name for name, capability in _CAPABILITIES.items() if capability in parts)


def with_subscription(notification: bytes, id: bytes) -> bytes:
    """`notification` as one of the subscription `id` (raw JSON)."""
    return _with_meta_member(notification, {META_SUBSCRIPTION: msgspec.Raw(id)})


def without_subscription(notification: bytes) -> bytes:
    """The reverse of `with_subscription`."""
    return _with_meta_member(notification, {})


def _with_meta_member(notification: bytes, added: Members) -> bytes:
    message = members(notification)
    params = inner(message, "params")
    params = with_meta(params, without(inner(params, "_meta"), META_SUBSCRIPTION) | added)
    return joined(message | {"params": msgspec.Raw(joined(params))} if params else without(message, "params"))


def acknowledgement(id: bytes, honoured: Filter) -> bytes:
    """The first message of the subscription `id`."""
    params = {"_meta": {META_SUBSCRIPTION: msgspec.Raw(id)}, "notifications": honoured.encoded()}
    return messages.notification(ACKNOWLEDGED, params)


def changes(missed: Filter) -> list[bytes]:
    """The notifications that everything `missed` may have changed."""
    lists = [messages.notification(LIST_CHANGES[name]) for name in sorted(missed.lists)]
    return lists + [messages.notification(UPDATED, {"uri": uri}) for uri in sorted(missed.uris)]
