"""The control log as plain tables in memory. Reading them is synchronous and costs a dictionary look-up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from libs.common.control.entries import (
    DEFAULT_GROUP,
    KINDS,
    AnyEntry,
    Client,
    CredentialVersion,
    Group,
    Keys,
    Member,
    Org,
    Quota,
    Replica,
    Revoked,
    Rule,
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
    clients: dict[str, Client] = field(default_factory=dict)  # by `client_key`
    # These two are new dictionaries after each change, so that what is made of them is known by them.
    rules: dict[str, Rule] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    revoked: dict[str, Revoked] = field(default_factory=dict)
    credentials: dict[str, CredentialVersion] = field(default_factory=dict)  # by "<slug>.<user>"
    replicas: dict[str, Replica] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)  # keys of entries that are there, and not understood

    def apply(self, key: str, value: bytes | None) -> None:
        """Take in one entry of the log; `None` removes it.

        What cannot be understood counts as the more restrictive of absent and present: an unreadable user,
        server or group is absent, an unreadable revocation is present, an unreadable `org`, member or client
        is switched off, an unreadable rule denies everything, an unreadable quota allows no calls.
        """
        kind, _, name = key.partition(".")
        cls = KINDS.get(kind)
        if cls is None:  # a kind of a later version
            return
        entry: AnyEntry | None = None
        self.unreadable.discard(key)
        if value is not None:
            try:
                entry = msgspec.json.decode(value, type=cls)
            except msgspec.DecodeError as error:
                log.error("control_entry_unreadable", key=key, error=str(error))
                self.unreadable.add(key)
                entry = _RESTRICTIVE.get(kind, lambda _: None)(name)
        if kind == "org":
            self.org = entry if isinstance(entry, Org) else NO_ORG
        elif kind == "keys":
            self.keys = entry if isinstance(entry, Keys) else None
        else:
            if kind in {"rule", "quota"}:
                setattr(self, f"{kind}s", dict(self._table(kind)))
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


_UNREADABLE = "its settings cannot be read by this version"

_RESTRICTIVE: dict[str, Callable[[str], AnyEntry]] = {
    "org": lambda _: NO_ORG,
    "revoked": lambda name: Revoked(version=0, grant=name, at=0),
    "member": lambda name: Member(
        version=0, user=name, group=DEFAULT_GROUP, enabled=False, reason=_UNREADABLE
    ),
    "client": lambda name: Client(version=0, id=name, client_id="", enabled=False, reason=_UNREADABLE),
    # Above all others: nothing exempts from it.
    "rule": lambda name: Rule(version=0, id=name, name=name, priority=2**31, message=_UNREADABLE),
    "quota": lambda name: Quota(version=0, id=name, name=name, of="user", per_minute=0),
}
