"""Servers, groups and the organization's switch, and what a change of them did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from libs.common.control import entries
from libs.common.control.entries import ServerAccess
from libs.common.errors import Conflict, LockgateError, NotFound
from services.policy.definition import Definition
from services.policy.features import Features

T = TypeVar("T")


class UnknownServer(NotFound):
    type, title = "unknown-server", "There is no such server"


class UnknownGroup(NotFound):
    type, title = "unknown-group", "There is no such group"


class ServerExists(Conflict):
    type, title = "server-exists", "There is a server with this slug already"


class Changed(LockgateError):
    """The version named by `If-Match` is not the present one (RFC 9110, section 13.1.1)."""

    status, type, title = 412, "changed-meanwhile", "Somebody else changed this in the meantime"


@dataclass(frozen=True, slots=True)
class Precondition:
    """What has to be there for a write: `version` (`If-Match`), or nothing at all (`If-None-Match: *`)."""

    version: int | None = None
    absent: bool = False

    def check(self, present: int | None) -> None:
        """Raise `Changed` or `ServerExists` unless `present`, the version that is there, meets it."""
        if self.absent and present is not None:
            raise ServerExists
        if self.version is not None and self.version != present:
            raise Changed("Look at what is there now, then change it again.")


ANYTHING = Precondition()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A registered server. `version` grows with every change and never repeats, not even for its slug."""

    slug: str
    definition: Definition
    enabled: bool = True
    reason: str = ""
    features: Features = field(default_factory=Features)
    version: int

    def entry(self) -> entries.Server:
        """What the control log says about it. Prompts and resources are decided on without being known."""
        definition = self.definition
        return entries.Server(
            version=self.version,
            slug=self.slug,
            name=definition.name,
            url=definition.url,
            transport=definition.transport,
            bridge=definition.bridge,
            enabled=self.enabled,
            reason=self.reason,
            auth=definition.auth,
            tools={tool.name: "" for tool in self.features.tools},
            connect_timeout=definition.connect_timeout,
            response_timeout=definition.response_timeout,
            idle_timeout=definition.idle_timeout,
            command=list(definition.command),
            environment=dict(definition.environment),
            processes=definition.processes,
            idle_stop=definition.idle_stop,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A permission group and what it may use, by slug of the server."""

    id: str
    name: str
    servers: Mapping[str, ServerAccess] = field(default_factory=dict)
    version: int

    def entry(self) -> entries.Group:
        """What the control log says about it."""
        return entries.Group(version=self.version, id=self.id, name=self.name, servers=dict(self.servers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The switch for everybody and everything."""

    enabled: bool = True
    reason: str = ""
    version: int

    def entry(self) -> entries.Org:
        """What the control log says about it."""
        return entries.Org(version=self.version, enabled=self.enabled, reason=self.reason)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a write did: `None` stands for absent. `keys` are those of the control log that it concerns, the
    one that names it first; they are given too when nothing changed, since a request may be repeated in order
    to complete the first one."""

    before: T | None
    after: T | None
    keys: tuple[str, ...]

    @property
    def happened(self) -> bool:
        return self.before != self.after
