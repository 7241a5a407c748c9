"""What the control log should say, by the tables as they are.

A kind of entry is one row of `KINDS`: how to read all of them, and how to read one by its name in the key.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sqlmodel import Session, select

from libs.common.control.entries import (
    AnyEntry,
    Client,
    Group,
    Member,
    Org,
    Server,
    client_key,
    key_of,
)
from services.policy.store import groups, members, organization, servers
from services.policy.store.rules import Quotas, Rules
from services.policy.tables import GroupRow, ServerRow, SwitchRow


class Source(NamedTuple):
    """Where the entries of one kind come from."""

    all: Callable[[Session], Iterator[AnyEntry]]
    one: Callable[[Session, str], AnyEntry | None]


def all_entries(session: Session) -> dict[str, AnyEntry]:
    """By key."""
    return {key_of(entry): entry for source in KINDS.values() for entry in source.all(session)}


def named(session: Session, keys: Collection[str]) -> dict[str, AnyEntry]:
    """Those of `keys` that there should be."""
    found = {key: _named(session, key) for key in keys}
    return {key: entry for key, entry in found.items() if entry is not None}


def _named(session: Session, key: str) -> AnyEntry | None:
    kind, _, name = key.partition(".")
    return KINDS[kind].one(session, name) if kind in KINDS else None


def _org(session: Session, _: str = "") -> Org:
    return organization.load(session).entry()


def _orgs(session: Session) -> Iterator[Org]:
    yield _org(session)


def _server(session: Session, slug: str) -> Server | None:
    row = session.get(ServerRow, slug)
    return servers.load(session, row).entry() if row else None


def _servers(session: Session) -> Iterator[Server]:
    return (server.entry() for server in servers.load_all(session, session.exec(select(ServerRow)).all()))


def _group(session: Session, group: str) -> Group | None:
    row = session.get(GroupRow, group)
    return groups.load(session, row).entry() if row else None


def _groups(session: Session) -> Iterator[Group]:
    return (group.entry() for group in groups.load_all(session, session.exec(select(GroupRow)).all()))


def _member(session: Session, user: str) -> Member | None:
    return members.load(session, user).entry()


def _members(session: Session) -> Iterator[Member]:
    return (entry for member in members.load_all(session) if (entry := member.entry()))


def _client(session: Session, key: str) -> Client | None:
    return next((client for client in _clients(session) if client.id == key), None)


def _clients(session: Session) -> Iterator[Client]:
    """Those that are off: only for them there is an entry, and they are few."""
    for row in session.exec(select(SwitchRow).where(SwitchRow.level == "client")):
        id = client_key(row.subject)
        yield Client(
            version=row.version,
            id=id,
            client_id=row.subject,
            enabled=False,
            reason=row.reason,
            until=row.until,
        )


KINDS: dict[str, Source] = {
    "org": Source(_orgs, _org),
    "server": Source(_servers, _server),
    "group": Source(_groups, _group),
    "member": Source(_members, _member),
    "client": Source(_clients, _client),
    "rule": Source(Rules.load_all, Rules.load),
    "quota": Source(Quotas.load_all, Quotas.load),
}
