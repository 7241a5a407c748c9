"""The control log as plain tables in memory. Reading them is synchronous and costs a dictionary look-up."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from libs.common.control.entries import (
    DEFAULT_GROUP,
    KINDS,
    AnyEntry,
    CredentialVersion,
    Group,
    Keys,
    Member,
    Org,
    Replica,
    Revoked,
    Server,
    User,
)

log = structlog.get_logger(__name__)

NO_ORG = Org(version=0, enabled=False, reason="the organization's settings are not known here")


@dataclass(slots=True)
class Tables:
    """Everything the log says, by kind and name. Only the follower writes them."""

    org: Org = field(default_factory=lambda: NO_ORG)
    keys: Keys | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    revoked: dict[str, Revoked] = field(default_factory=dict)
    credentials: dict[str, CredentialVersion] = field(default_factory=dict)  # by "<slug>.<user>"
    replicas: dict[str, Replica] = field(default_factory=dict)

    def apply(self, key: str, value: bytes | None) -> None:
        """Take in one entry of the log; `None` removes it.

        What cannot be understood counts as the more restrictive of absent and present: an unreadable user,
        server or group is absent, an unreadable revocation is present, an unreadable `org` is switched off.
        """
        kind, _, name = key.partition(".")
        cls = KINDS.get(kind)
        if cls is None:  # a kind of a later version
            return
        entry: AnyEntry | None = None
        if value is not None:
            try:
                entry = msgspec.json.decode(value, type=cls)
            except msgspec.DecodeError as error:
                log.error("control_entry_unreadable", key=key, error=str(error))
                entry = _restrictive(kind, name)
        if kind == "org":
            self.org = entry if isinstance(entry, Org) else NO_ORG
        elif kind == "keys":
            self.keys = entry if isinstance(entry, Keys) else None
        else:
            self._put(self._table(kind), name, entry)

    def _table(self, kind: str) -> dict[str, Any]:
        table: dict[str, Any] = getattr(self, f"{kind}s" if kind != "revoked" else kind)
        return table

    @staticmethod
    def _put(table: dict[str, Any], name: str, entry: AnyEntry | None) -> None:
        if entry is None:
            table.pop(name, None)
        else:
            table[name] = entry

    def group_of(self, user: str) -> Group | None:
        """The group that `user` is in; without an entry of their own it is the default group."""
        member = self.members.get(user)
        return self.groups.get(member.group if member else DEFAULT_GROUP)


def _restrictive(kind: str, name: str) -> AnyEntry | None:
    if kind == "revoked":
        return Revoked(version=0, grant=name, at=0)
    if kind == "org":
        return NO_ORG
    return None
