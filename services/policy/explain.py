"""Why somebody may or may not do something: the ladder of the gateways, climbed rung by rung.

It is climbed by the control log as policy knows it. What only a replica knows is left out: whether its lease
is valid, and what it saw of a tool that nobody has reported yet.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import nats.errors
from nats.js.errors import APIError, NotFoundError

from libs.common.bus import Bus, Refused
from libs.common.clock import now
from libs.common.control.entries import ORGANIZATION, client_key
from libs.common.control.follower import STREAM, SUBJECT, Follower, is_deletion
from libs.common.control.tables import Tables
from libs.common.decision import ladder, rules
from libs.common.decision.ladder import Call, Climb, Step
from libs.common.decision.rules import Outcome
from libs.common.errors import Unavailable
from libs.common.requests import QUOTA_USE, AskQuotaUse, QuotaStanding, QuotaUse
from libs.common.tokens import Claims

Revisions: TypeAlias = Mapping[str, int]  # of entries of the control log, by key


@dataclass(frozen=True, slots=True)
class Question:
    """Might `user` (an id, or an e-mail address) make `call` with the client, at that time (None: now)?"""

    user: str
    call: Call
    client_id: str = ""
    client_name: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The climb, its steps, and the entries that each of them read.

    `rules` are those that were looked at. `quotas` tells what is used of those against which the call would
    be counted; None where nothing would be counted, or the counts cannot be read.
    """

    climb: Climb
    revision: int
    steps: list[Step]
    read: list[Revisions]
    rules: list[Outcome]
    quotas: list[QuotaStanding] | None


class Explainer:
    """Answers questions by the tables of `follower`."""

    def __init__(self, bus: Bus, follower: Follower) -> None:
        self._bus, self._follower = bus, follower

    async def explain(self, question: Question) -> Explanation:
        tables, revision = self._follower.tables, self._follower.applied
        at = question.at or now()
        climb = Climb(tables, True, claims(tables, question), question.call, at=at)
        steps = list(ladder.explain(climb))
        looked_at = list(rules.outcomes(climb)) if steps[-1].rung in _FROM_RULES else []
        keys = [list(_READ[step.rung](climb)) for step in steps]
        allowed = steps[-1].refusal is None
        written = await self._written({key for named in keys for key in named}, revision)
        read: list[Revisions] = [{key: written[key] for key in named if key in written} for named in keys]
        quotas = await self._quotas(climb) if allowed else None
        return Explanation(climb, revision, steps, read, looked_at, quotas)

    async def _written(self, keys: Collection[str], revision: int) -> Revisions:
        """When those of the entries were written that have been there since `revision` or before."""
        revisions = await asyncio.gather(*map(self._revision, keys))
        return {key: written for key, written in zip(keys, revisions, strict=True) if 0 < written <= revision}

    async def _revision(self, key: str) -> int:
        try:
            message = await self._bus.js.get_last_msg(STREAM, SUBJECT + key)
        except NotFoundError:
            return 0
        except (APIError, nats.errors.Error, TimeoutError) as error:
            raise Unavailable("the control log does not answer") from error
        return 0 if is_deletion(message.headers) else message.seq or 0

    async def _quotas(self, climb: Climb) -> list[QuotaStanding] | None:
        """Asked of a gateway."""
        tools = [subject.name for subject in climb.call.subjects if subject.kind == "tool"]
        if not tools:
            return None
        assert climb.user
        query = AskQuotaUse(
            user=climb.user.id,
            server=climb.call.server,
            tool=tools[0],
            group=climb.group.id if climb.group else "",
        )
        try:
            return (await self._bus.request(QUOTA_USE, query, QuotaUse)).limits
        except (Unavailable, Refused):
            return None


def claims(tables: Tables, question: Question) -> Claims:
    """Those of a token that the user would get now."""
    issued = int(time.time())
    user = _user_id(tables, question.user)
    return Claims(user, "", question.client_id, question.client_name, (), issued, issued)


def _user_id(tables: Tables, name: str) -> str:
    if name in tables.users or "@" not in name:
        return name
    wanted = name.casefold()
    return next((user.id for user in tables.users.values() if user.email.casefold() == wanted), name)


# -- which entries each rung reads -----------------------------------------------------------------


def _user(climb: Climb) -> Iterator[str]:
    if climb.user:
        yield f"user.{climb.user.id}"


def _caller(climb: Climb) -> Iterator[str]:
    yield f"member.{climb.claims.subject}"
    yield from _group(climb)
    if climb.claims.client_id:
        yield f"client.{client_key(climb.claims.client_id)}"


def _group(climb: Climb) -> Iterator[str]:
    if climb.group:
        yield f"group.{climb.group.id}"


def _server(climb: Climb) -> Iterator[str]:
    if climb.server:
        yield f"server.{climb.server.slug}"


def _group_and_server(climb: Climb) -> Iterator[str]:
    yield from _group(climb)
    yield from _server(climb)


def _rules(climb: Climb) -> Iterator[str]:
    yield from dict.fromkeys(f"rule.{outcome.rule.id}" for outcome in rules.outcomes(climb))


def _credentials(climb: Climb) -> Iterator[str]:
    for owner in (climb.claims.subject, ORGANIZATION):
        yield f"credential.{climb.call.server}.{owner}"


_READ: dict[str, Callable[[Climb], Iterable[str]]] = {
    "lease": lambda _: (),
    "user_and_grant": _user,
    "organization_switch": lambda _: ("org",),
    "caller_switches": _caller,
    "group_may_use_server": _group_and_server,
    "server_switch": _server,
    "group_may_use_subjects": _group,
    "tool_switches_and_pins": _server,
    "rules_allow": _rules,
    "credential_present": _credentials,
}
_FROM_RULES = {"rules_allow", "credential_present"}
