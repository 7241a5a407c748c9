"""Recorded calls, decided again as if rules or what groups may use had been changed.

Each call is decided twice, by what holds now and by what is proposed, so that what differs is due to the
proposal alone; by the caller's present group, at the time at which the call was made. What has nothing to do
with the proposal is left out: switches, pins, quotas, credentials, revoked grants.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from libs.common.bus import Bus, Refused
from libs.common.clock import iso, now
from libs.common.control.entries import Rule, ServerAccess
from libs.common.control.follower import Follower
from libs.common.control.tables import Tables
from libs.common.decision import ladder, rules
from libs.common.decision.ladder import Call, Climb, Refusal
from libs.common.decision.subjects import WITH_ARGUMENTS, Subject, Unnamed, subjects_of
from libs.common.errors import Unavailable
from libs.common.requests import RECORDED_CALLS, AskRecordedCalls, RecordedCall, RecordedCalls
from libs.common.tokens import Claims
from services.policy.domain import UnknownGroup, UnknownServer
from services.policy.rules import UnknownRule

METHODS = ("tools/call", "prompts/get", "resources/read", "resources/subscribe", "completion/complete")
EXAMPLES = 20  # of each kind of difference
PAGE = 500
WITHIN = 30.0  # seconds for a page of records

# Why a call cannot be decided again: its input was not recorded as a whole and a rule looks at it, it is not
# readable, its user or server is gone.
Unfit: TypeAlias = Literal["input_cut", "input_unreadable", "user_gone", "server_gone"]
UNFIT: tuple[Unfit, ...] = get_args(Unfit)

_RUNGS: tuple[ladder.Rung, ...] = (
    ladder.group_may_use_server,
    ladder.group_may_use_subjects,
    ladder.rules_allow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What would be changed. `access` is by group and server; None: nothing of the server."""

    rules: tuple[Rule, ...] = ()
    removed_rules: tuple[str, ...] = ()
    access: Mapping[tuple[str, str], ServerAccess | None] = field(default_factory=dict)

    def applied(self, tables: Tables) -> Tables:
        """`tables` as they would be. Raises `UnknownRule`, `UnknownGroup`, `UnknownServer`."""
        changed, groups = dict(tables.rules), dict(tables.groups)
        for id in self.removed_rules:
            if changed.pop(id, None) is None:
                raise UnknownRule(f"No rule has the id {id[:80]!r}.")
        changed |= {rule.id: rule for rule in self.rules}
        for (id, slug), access in self.access.items():
            if id not in groups:
                raise UnknownGroup(f"No group is called {id[:80]!r}.")
            if slug not in tables.servers:
                raise UnknownServer(f"No server is called {slug[:80]!r}.")
            servers = {key: value for key, value in groups[id].servers.items() if key != slug}
            servers |= {slug: access} if access else {}
            groups[id] = msgspec.structs.replace(groups[id], servers=servers)
        return replace(tables, rules=changed, groups=groups)

    def servers(self, tables: Tables) -> list[str]:
        """Whose calls may be decided otherwise; empty for those of all."""
        touched = [*self.rules, *(tables.rules[id] for id in {*self.removed_rules, *self._replaced(tables)})]
        if not all(rule.servers for rule in touched):
            return []
        return sorted({slug for rule in touched for slug in rule.servers} | {slug for _, slug in self.access})

    def _replaced(self, tables: Tables) -> set[str]:
        return {rule.id for rule in self.rules} & tables.rules.keys()


@dataclass(frozen=True, slots=True)
class Example:
    """A call that would be decided otherwise; None stands for allowed."""

    call: RecordedCall
    present: Refusal | None
    proposed: Refusal | None


@dataclass(slots=True)
class Outcome:
    """What came of a replay. `users` are those for whom something differs; `complete`: there were no more
    calls in that time than were looked at, the newest first."""

    revision: int
    since: datetime
    complete: bool = True
    calls: int = 0
    unfit: dict[Unfit, int] = field(default_factory=lambda: dict.fromkeys(UNFIT, 0))
    newly_denied: int = 0
    newly_allowed: int = 0
    failed: int = 0  # newly denied because a condition cannot be evaluated
    users: set[str] = field(default_factory=set)
    denied: list[Example] = field(default_factory=list)
    allowed: list[Example] = field(default_factory=list)

    @property
    def looked_at(self) -> int:
        return self.calls + sum(self.unfit.values())

    def add(self, call: RecordedCall, present: Refusal | None, proposed: Refusal | None) -> None:
        self.calls += 1
        if (present is None) is (proposed is None):
            return
        self.users.add(call.user)
        self.newly_denied += present is None
        self.newly_allowed += proposed is None
        self.failed += proposed is not None and proposed.reason == "rule_failed"
        examples = self.allowed if proposed is None else self.denied
        if len(examples) < EXAMPLES:
            examples.append(Example(call, present, proposed))


class Replays:
    """Replays over the records of the activity service, by the control log as `follower` knows it."""

    def __init__(self, bus: Bus, follower: Follower) -> None:
        self._bus, self._follower = bus, follower
        self._one = asyncio.Semaphore()  # at a time: each is work for the database of the records

    async def replay(self, proposal: Proposal, days: float, most: int) -> Outcome:
        """The newest calls of the last `days`, at most `most`. Raises `Unavailable` without the records."""
        async with self._one:
            return await self._replay(proposal, now() - timedelta(days=days), most)

    async def _replay(self, proposal: Proposal, since: datetime, most: int) -> Outcome:
        present = _frozen(self._follower.tables)
        proposed = proposal.applied(present)
        outcome = Outcome(self._follower.applied, since)
        query = AskRecordedCalls(
            methods=list(METHODS), since=iso(since), servers=proposal.servers(present), limit=PAGE
        )
        while True:
            page = await self._page(query)
            room = most - outcome.looked_at
            for call in page.calls[:room]:
                _decide_again(outcome, call, present, proposed)
                await asyncio.sleep(0)  # callers chose the arguments: switches must not wait for all of them
            outcome.complete = not page.next and len(page.calls) <= room
            if outcome.complete or outcome.looked_at >= most:
                return outcome
            query = msgspec.structs.replace(query, after=page.next)

    async def _page(self, query: AskRecordedCalls) -> RecordedCalls:
        try:
            return await self._bus.request(RECORDED_CALLS, query, RecordedCalls, timeout=WITHIN)
        except Refused as error:
            raise Unavailable(f"the records cannot be read: {error.detail}") from error


def _frozen(tables: Tables) -> Tables:
    """What decisions here read, as it is now: what the log brings meanwhile must not come between the two."""
    return replace(
        tables,
        users=dict(tables.users),
        members=dict(tables.members),
        groups=dict(tables.groups),
        servers=dict(tables.servers),
        rules=dict(tables.rules),
    )


def _decide_again(outcome: Outcome, call: RecordedCall, present: Tables, proposed: Tables) -> None:
    try:
        again = _call_of(call)
    except (Unnamed, msgspec.DecodeError):
        outcome.unfit["input_unreadable"] += 1
        return
    climbs = [_climb(tables, call, again) for tables in (present, proposed)]
    if climbs[0].user is None:
        outcome.unfit["user_gone"] += 1
    elif call.server not in present.servers:
        outcome.unfit["server_gone"] += 1
    elif call.cut and (not again.subjects or any(map(rules.read_arguments, climbs))):
        outcome.unfit["input_cut"] += 1
    else:
        outcome.add(call, *(_refusal(climb) for climb in climbs))


def _call_of(record: RecordedCall) -> Call:
    """The call as it was. Of one whose input was cut only a tool is known."""
    if record.cut:
        known = record.method == "tools/call"
        return Call(record.server, record.method, (Subject("tool", record.tool),) if known else ())
    params = msgspec.json.decode(record.input or b"{}", type=dict[str, Any])
    arguments = params.get("arguments") if record.method in WITH_ARGUMENTS else None
    subjects = subjects_of(record.method, params)
    return Call(record.server, record.method, subjects, arguments if isinstance(arguments, dict) else {})


def _climb(tables: Tables, record: RecordedCall, call: Call) -> Climb:
    claims = Claims(record.user, "", record.client_id, record.client_name, (), 0, 0)
    climb = Climb(tables, True, claims, call, at=datetime.fromisoformat(record.time))
    climb.user, climb.group = tables.users.get(record.user), tables.group_of(record.user)
    climb.server = tables.servers.get(record.server)
    return climb


def _refusal(climb: Climb) -> Refusal | None:
    return next((refusal for rung in _RUNGS if (refusal := rung(climb))), None)
