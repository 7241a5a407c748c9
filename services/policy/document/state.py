"""What a document is about, as it is or should be, and what differs between the two."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import msgspec

from libs.common.control.entries import DEFAULT_GROUP, Quota, Rule, ServerAccess

What: TypeAlias = Literal["create", "change", "remove"]


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group's name, and what it may use by slug of the server."""

    name: str
    servers: Mapping[str, ServerAccess] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """`members` are the groups of those who are in another than the default one, by user. The versions of
    rules and quotas are of no account."""

    groups: Mapping[str, GroupState]
    members: Mapping[str, str]
    rules: Mapping[str, Rule]
    quotas: Mapping[str, Quota]

    @property
    def etag(self) -> str:
        """An entity tag: the same for the same state."""
        parts = (self.groups, self.members, _unversioned(self.rules), _unversioned(self.quotas))
        return sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]

    def group_of(self, user: str) -> str:
        return self.members.get(user, DEFAULT_GROUP)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is to be created, changed or removed. `key` is that of the control log; `before` and
    `after` are what the document can say of it."""

    key: str
    before: Any
    after: Any

    @property
    def what(self) -> What:
        return "create" if self.before is None else "remove" if self.after is None else "change"


def differences(present: State, wanted: State) -> Iterator[Difference]:
    """What has to be done, in an order in which it can be: what is referred to comes first, and goes last."""
    groups = list(_between("group", present.groups, wanted.groups))
    yield from (each for each in groups if each.what != "remove")
    yield from _between("member", present.members, wanted.members)
    yield from _between("rule", _unversioned(present.rules), _unversioned(wanted.rules))
    yield from _between("quota", _unversioned(present.quotas), _unversioned(wanted.quotas))
    yield from (each for each in groups if each.what == "remove")


def _between(kind: str, present: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted(present.keys() | wanted.keys()):
        before, after = present.get(name), wanted.get(name)
        if before != after:
            yield Difference(f"{kind}.{name}", _told(before), _told(after))


def _unversioned(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {id: msgspec.structs.replace(entry, version=0) for id, entry in entries.items()}


def _told(value: Any) -> Any:
    if isinstance(value, GroupState):
        value = asdict(value)
    told = msgspec.to_builtins(value)
    return (
        {key: told[key] for key in told if key not in {"version", "id"}} if isinstance(told, dict) else told
    )
