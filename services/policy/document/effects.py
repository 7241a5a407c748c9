"""Who gains and who loses what, when one state becomes another.

People are taken together who are in the same group before and in the same group after, and whom the same
rules name. What they may use is what the rungs of the ladder say: a group's access, and the rules without a
condition. Rules with one depend on the call; a replay tells of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from libs.common.control.entries import Group, Member, User
from libs.common.control.tables import Tables
from libs.common.decision import ladder
from libs.common.decision.ladder import Call, Climb
from libs.common.decision.subjects import USE, Subject
from libs.common.tokens import Claims
from services.policy.document.state import State
from services.policy.domain import Server

PEOPLE = 20  # named of those who gain or lose the same
# Stands for a tool that nobody knows yet. No tool can be called so.
_LATER = "\n"

Later: TypeAlias = Literal["", "gains", "loses"]


class _Class(NamedTuple):
    """The same for all of its people: their groups, and the users that rules name, of whom each is alone."""

    before: str
    after: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What some people gain and lose at one server; things as `tool name`. `count` is how many they are,
    `people` the e-mail addresses of the first. `later`: what becomes of tools that appear later."""

    people: Sequence[str]
    count: int
    before: str  # their group
    after: str
    server: str
    gains: Sequence[str]
    loses: Sequence[str]
    later: Later


def effects(tables: Tables, servers: Iterable[Server], present: State, wanted: State) -> Iterator[Effect]:
    """By people and server, the most people first; nothing where nothing differs."""
    was, will = _tables(tables, present), _tables(tables, wanted)
    classes = _classes(tables.users, present, wanted)
    rules = (*was.rules.values(), *will.rules.values())
    everywhere, by_group = was.rules != will.rules, any(rule.scope == "group" for rule in rules)
    offered = {server.slug: _uses(server) for server in servers}
    for each, people in sorted(classes.items(), key=lambda item: (-len(item[1]), item[0])):
        before, after = was.groups.get(each.before), will.groups.get(each.after)
        ruled = everywhere or (by_group and each.before != each.after)
        for slug in sorted(_touched(before, after, ruled, offered)):
            gains, loses = _difference(was, will, people[0], slug, offered[slug])
            if gains or loses:
                yield _effect(people, each, slug, gains, loses)


def _tables(tables: Tables, state: State) -> Tables:
    groups = {
        id: Group(version=0, id=id, name=group.name, servers=dict(group.servers))
        for id, group in state.groups.items()
    }
    members = {user: Member(version=0, user=user, group=group) for user, group in state.members.items()}
    rules = {id: rule for id, rule in state.rules.items() if not rule.condition}
    return replace(tables, groups=groups, members=members, rules=rules)


def _classes(users: Mapping[str, User], present: State, wanted: State) -> dict[_Class, list[User]]:
    both = (*present.rules.values(), *wanted.rules.values())
    alone = {rule.scope_id for rule in both if rule.scope == "user"}
    found: defaultdict[_Class, list[User]] = defaultdict(list)
    for id, user in users.items():
        place = _Class(present.group_of(id), wanted.group_of(id), id if id in alone else "")
        found[place].append(user)
    return found


def _touched(
    before: Group | None, after: Group | None, ruled: bool, offered: Mapping[str, object]
) -> set[str]:
    """The servers of which the group before and the one after may use something else. `ruled`: also where
    both may use the same, since other rules may hold."""
    was, will = before.servers if before else {}, after.servers if after else {}
    both = was.keys() | will.keys()
    return {slug for slug in both if slug in offered and (ruled or was.get(slug) != will.get(slug))}


def _uses(server: Server) -> list[Subject]:
    """All that is known of a server, and a tool that is not."""
    known = [Subject("tool", name) for name in server.tools]
    known += [Subject("prompt", each.name) for each in server.features.prompts]
    known += [Subject("resource", each.name) for each in server.features.resources]
    return [*known, Subject("tool", _LATER)]


def _difference(
    was: Tables, will: Tables, user: User, slug: str, uses: Sequence[Subject]
) -> tuple[list[Subject], list[Subject]]:
    """What `user` gains, and loses."""
    gains: list[Subject] = []
    loses: list[Subject] = []
    before, after = _usable(was, user, slug, uses), _usable(will, user, slug, uses)
    for use, could, can in zip(uses, before, after, strict=True):
        if could is not can:
            (gains if can else loses).append(use)
    return gains, loses


def _effect(
    people: Sequence[User], each: _Class, slug: str, gains: Sequence[Subject], loses: Sequence[Subject]
) -> Effect:
    return Effect(
        people=sorted(user.email for user in people)[:PEOPLE],
        count=len(people),
        before=each.before,
        after=each.after,
        server=slug,
        gains=_told(gains),
        loses=_told(loses),
        later="gains" if _is_later(gains) else "loses" if _is_later(loses) else "",
    )


def _told(uses: Sequence[Subject]) -> list[str]:
    return [f"{use.kind} {use.name}" for use in uses if use.name != _LATER]


def _is_later(uses: Sequence[Subject]) -> bool:
    return any(use.name == _LATER for use in uses)


def _usable(tables: Tables, user: User, slug: str, uses: Sequence[Subject]) -> list[bool]:
    claims = Claims(user.id, "", "", "", (), 0, 0)
    climb = Climb(tables, True, claims, Call(slug))
    climb.user, climb.group = user, tables.group_of(user.id)
    if ladder.group_may_use_server(climb):
        return [False] * len(uses)
    return [_may(climb, slug, use) for use in uses]


def _may(climb: Climb, slug: str, use: Subject) -> bool:
    climb.call = Call(slug, USE[use.kind], (use,))
    return not (ladder.group_may_use_subjects(climb) or ladder.rules_allow(climb))
