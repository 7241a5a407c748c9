"""Servers, groups, members and the organization, and what a change of them did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from msgspec import to_builtins

from libs.common.control import entries
from libs.common.control.entries import DEFAULT_GROUP, Off, ServerAccess
from libs.common.errors import Conflict, LockgateError, NotFound
from services.policy.definition import Definition
from services.policy.features import Features
from services.policy.pins import Pin, is_full


class UnknownServer(NotFound):
    type, title = "unknown-server", "There is no such server"


class UnknownGroup(NotFound):
    type, title = "unknown-group", "There is no such group"


class UnknownUser(NotFound):
    type, title = "unknown-user", "There is no such user"


class ServerExists(Conflict):
    type, title = "server-exists", "There is a server with this slug already"


class GroupExists(Conflict):
    type, title = "group-exists", "There is a group with this id already"


class DefaultGroupStays(Conflict):
    type, title = "default-group", "The default group cannot be deleted"


class Changed(LockgateError):
    """The version named by `If-Match` is not the present one (RFC 9110, section 13.1.1)."""

    status, type, title = 412, "changed-meanwhile", "Somebody else changed this in the meantime"


@dataclass(frozen=True, slots=True)
class Precondition:
    """What has to be there for a write: `version` (`If-Match`), or nothing at all (`If-None-Match: *`)."""

    version: int | None = None
    absent: bool = False

    def check(self, present: int | None, exists: type[Conflict] = Conflict) -> None:
        """Raise `Changed` or `exists` unless `present`, the version that is there, meets it."""
        if self.absent and present is not None:
            raise exists
        if self.version is not None and self.version != present:
            raise Changed("Look at what is there now, then change it again.")


ANYTHING = Precondition()


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchable:
    """Something with a switch. `off` says why it is off; none when it is on.

    `version` grows with every change, of the switch too, and never repeats.
    """

    off: Off | None = None
    version: int

    @property
    def enabled(self) -> bool:
        return self.off is None

    @property
    def reason(self) -> str:
        return self.off.reason if self.off else ""

    @property
    def until(self) -> str:
        return self.off.until if self.off else ""

    def switched(self) -> dict[str, Any]:
        """The fields of `entries.Switched`."""
        return {
            "version": self.version,
            "enabled": self.enabled,
            "reason": self.reason,
            "until": self.until,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Switchable):
    """A registered server. `tools_off` are those of its tools that are switched off; `pins` says which of
    their definitions are approved."""

    slug: str
    definition: Definition
    features: Features = field(default_factory=Features)
    tools_off: Mapping[str, Off] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)

    @property
    def tools(self) -> dict[str, Pin]:
        """All its tools by name, those that it offers first. A pin outlives what is offered."""
        return {tool.name: Pin() for tool in self.features.tools} | dict(self.pins)

    def entry(self) -> entries.Server:
        """What the control log says about it. Prompts and resources are decided on without being known."""
        definition, tools = self.definition, self.tools
        return entries.Server(
            slug=self.slug,
            name=definition.name,
            url=definition.url,
            transport=definition.transport,
            bridge=definition.bridge,
            auth=definition.auth,
            tools={name: pin.digest for name, pin in tools.items() if pin.held != "new"},
            quarantined={name: pin.held for name, pin in tools.items() if pin.held},
            tools_off=dict(self.tools_off),
            new_tools="review" if is_full(tools) else definition.new_tools,
            pinning=definition.pinning,
            connect_timeout=definition.connect_timeout,
            response_timeout=definition.response_timeout,
            idle_timeout=definition.idle_timeout,
            command=list(definition.command),
            environment=dict(definition.environment),
            processes=definition.processes,
            idle_stop=definition.idle_stop,
            **self.switched(),
        )

    def record(self) -> dict[str, object]:
        """The entry, and what it offers and the log does not say."""
        entry = self.entry()
        offered = {kind: [feature.name for feature in known] for kind, known in self.features}
        return _record(entry) | {"pinned": entry.tools} | offered


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Switchable):
    """A permission group and what it may use, by slug of the server."""

    id: str
    name: str
    servers: Mapping[str, ServerAccess] = field(default_factory=dict)

    def entry(self) -> entries.Group:
        """What the control log says about it."""
        return entries.Group(id=self.id, name=self.name, servers=dict(self.servers), **self.switched())

    def record(self) -> dict[str, object]:
        return _record(self.entry())


@dataclass(frozen=True, slots=True, kw_only=True)
class Disbanded:
    """A group as it was when it was deleted, and who was in it."""

    group: Group
    members: tuple[str, ...]

    def record(self) -> dict[str, object]:
        return self.group.record() | {"members": self.members}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Switchable):
    """A user's group. `version` is 0 where nothing is kept of them: they are in the default group, and on."""

    user: str
    group: str = DEFAULT_GROUP

    def entry(self) -> entries.Member | None:
        """What the control log says about it; nothing for one of whom nothing is kept."""
        return entries.Member(user=self.user, group=self.group, **self.switched()) if self.version else None

    def record(self) -> dict[str, object]:
        return {"user": self.user, "group": self.group} | self.switched()


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization(Switchable):
    """Everybody and everything."""

    def entry(self) -> entries.Org:
        """What the control log says about it."""
        return entries.Org(**self.switched())

    def record(self) -> dict[str, object]:
        return _record(self.entry())


class Recorded(Protocol):
    """What can be changed."""

    def record(self) -> dict[str, object]:
        """What the record of a change says of it, before or after; JSON can say it."""
        ...


T = TypeVar("T", bound=Recorded)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a write did: `None` stands for absent. `keys` are those of the control log that it concerns, in
    the order in which they are to be written; they are given too when nothing changed, since a request may be
    repeated in order to complete the first one. `subject` is what names it; empty for the first of them."""

    before: T | None
    after: T | None
    keys: tuple[str, ...]
    subject: str = ""

    @property
    def happened(self) -> bool:
        return self.before != self.after


def _record(entry: entries.Entry) -> dict[str, object]:
    record: dict[str, object] = to_builtins(entry)
    return record
