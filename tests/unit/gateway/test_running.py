"""Which calls in flight are decided on again when the control log changes."""

import msgspec
import pytest

from libs.common.control.entries import (
    AnyEntry,
    Client,
    CredentialVersion,
    Group,
    Member,
    Org,
    Quota,
    Revoked,
    Rule,
    Server,
    ServerAccess,
    User,
    client_key,
    key_of,
    origin_of,
)
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, Decision, decide
from libs.common.decision.subjects import Subject
from libs.common.tokens import Claims
from services.gateway.connection import UpstreamFailed
from services.gateway.running import Flight, Running

URL = "http://u.example/mcp"


class Carrier:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def abort(self, failure: UpstreamFailed) -> None:
        self.ended.append(failure.reason)


def organization() -> list[AnyEntry]:
    """Two people in two groups with a call each to a server of their own, and everything that they need."""
    entries: list[AnyEntry] = [Org(version=1)]
    for name in ("ann", "bob"):
        slug = f"of-{name}"
        entries += [
            User(version=1, id=name, email=f"{name}@x.example"),
            Member(version=1, user=name, group=name),
            Group(version=1, id=name, name=name, servers={slug: ServerAccess()}),
            Server(version=1, slug=slug, name=slug, url=URL, auth="api_key"),
            CredentialVersion(version=1, slug=slug, user=name, origin=origin_of(URL)),
        ]
    return entries


# A change -> whose call it ends.
CHANGES: dict[str, tuple[AnyEntry | str, set[str]]] = {
    "the organization is off": (Org(version=2, enabled=False), {"ann", "bob"}),
    "a user is deactivated": (User(version=2, id="ann", email="a", active=False), {"ann"}),
    "a user is gone": ("user.ann", {"ann"}),
    "a user is switched off": (Member(version=2, user="ann", group="ann", enabled=False), {"ann"}),
    "a user is moved": (Member(version=2, user="ann", group="bob"), {"ann"}),
    "a group is gone": ("group.ann", {"ann"}),
    "a group loses its server": (Group(version=2, id="bob", name="b"), {"bob"}),
    "a server is gone": ("server.of-ann", {"ann"}),
    "a credential is gone": ("credential.of-bob.bob", {"bob"}),
    "a grant is revoked": (Revoked(version=2, grant="grant-ann", at=0), {"ann"}),
    "a client is off": (
        Client(version=2, id=client_key("client-ann"), client_id="client-ann", enabled=False),
        {"ann"},
    ),
    "a rule denies a tool": (Rule(version=2, id="r", name="r", tools=["tool-of-bob"]), {"bob"}),
    "a quota is used up": (Quota(version=2, id="q", name="q", of="user", per_minute=0), set()),
    "another user comes": (User(version=2, id="eve", email="e"), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_ends_what_it_forbids_and_decides_on_no_other_user_for_it(name: str) -> None:
    change, ended = CHANGES[name]
    tables, decided = Tables(), list[str]()

    def by_tables(claims: Claims, call: Call) -> Decision:
        decided.append(claims.subject)
        return decide(tables, 1, True, claims, call)

    def written(entry: AnyEntry | str) -> str:
        key = entry if isinstance(entry, str) else key_of(entry)
        tables.apply(key, None if isinstance(entry, str) else msgspec.json.encode(entry))
        return key

    for entry in organization():
        written(entry)
    running = Running(by_tables, lambda: True, calls=5, streams=5)
    carriers = {person: Carrier() for person in ("ann", "bob")}
    flights = [
        Flight(
            Claims(person, f"grant-{person}", f"client-{person}", "", (), 0, 0),
            Call(f"of-{person}", "tools/call", (Subject("tool", f"tool-of-{person}"),)),
            carrier,
        )
        for person, carrier in carriers.items()
    ]
    with running.carry(flights[0]), running.carry(flights[1]):
        assert all(by_tables(flight.claims, flight.call).allowed for flight in flights)
        decided.clear()
        running.review(written(change), b"", 1)
    assert {person for person, carrier in carriers.items() if carrier.ended} == ended
    if isinstance(change, User | Member):
        assert "bob" not in decided


def test_after_a_log_that_was_read_anew_everything_is_decided_on() -> None:
    """The entries that came meanwhile may have forbidden something, whatever the last of them is about."""
    complete, tables = False, Tables()
    for entry in organization():
        tables.apply(key_of(entry), msgspec.json.encode(entry))
    running = Running(
        lambda claims, call: decide(tables, 1, True, claims, call), lambda: complete, calls=5, streams=5
    )
    carrier = Carrier()
    call = Call("of-ann", "tools/call", (Subject("tool", "x"),))
    with running.carry(Flight(Claims("ann", "g", "c", "", (), 0, 0), call, carrier)):
        tables.apply("group.ann", None)
        running.review("group.ann", None, 1)
        assert not carrier.ended
        complete = True
        running.review("replica.one", b"", 2)
        assert carrier.ended == ["server_not_allowed"]
