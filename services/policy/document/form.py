"""The document: groups with their members and access, rules, quotas.

A section that is absent is not managed by it. One that is present is complete: what it does not name is to be
removed. People are named by e-mail. Everybody whom no group names is in the default group.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import Field

from libs.common.control.entries import DEFAULT_GROUP, Quota, Rule, ServerAccess, User
from libs.common.errors import BadRequest
from services.policy.document.state import GroupState, State
from services.policy.features import KINDS, named
from services.policy.names import check_group, check_name
from services.policy.rules import MOST, group_of, servers_of, user_of
from services.policy.views.base import Body
from services.policy.views.groups import AccessBody
from services.policy.views.rules import QuotaBody, RuleBody

PROBLEMS = 100  # told of one document


class GroupSection(Body):
    """`members` are e-mail addresses; `servers` is what they may use, by slug."""

    name: str
    members: list[str] = Field(default_factory=list)
    servers: dict[str, AccessBody] = Field(default_factory=dict)


class Document(Body):
    """Access as code, version 1."""

    version: Literal[1]
    groups: dict[str, GroupSection] | None = None
    rules: dict[str, RuleBody] | None = None
    quotas: dict[str, QuotaBody] | None = None

    @classmethod
    def of(cls, state: State, users: Mapping[str, User]) -> Self:
        """The document that says `state`."""
        members: dict[str, list[str]] = {}
        for user, group in state.members.items():
            if user in users:
                members.setdefault(group, []).append(users[user].email)
        return cls.model_validate(
            {
                "version": 1,
                "groups": {
                    id: {
                        "name": group.name,
                        "members": sorted(members.get(id, [])),
                        "servers": {slug: _access(access) for slug, access in sorted(group.servers.items())},
                    }
                    for id, group in sorted(state.groups.items())
                },
                "rules": {id: _plain(rule, RuleBody, users) for id, rule in sorted(state.rules.items())},
                "quotas": {id: _plain(quota, QuotaBody, users) for id, quota in sorted(state.quotas.items())},
            }
        )

    def shown(self) -> dict[str, Any]:
        """Without what is as it is by default, so that it is pleasant to read."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)

    def state(self, present: State, users: Mapping[str, User], servers: frozenset[str]) -> State:
        """What it asks for; `present` is there now. Raises `BadRequest` that tells of all mistakes."""
        return _Reading(self, present, users, servers).state()


def _access(access: ServerAccess) -> dict[str, Any]:
    return {"default": access.default} | {kind: dict(named(access, kind)) for kind in KINDS}


def _plain(entry: Rule | Quota, body: type[Body], users: Mapping[str, User]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(entry, name) for name in body.model_fields}
    if (user := user_of(entry)) in users:
        fields["scope_id" if isinstance(entry, Rule) else "subject"] = users[user].email
    return fields


class _Reading:
    """One document on its way to a state, with the mistakes found on it."""

    def __init__(
        self, document: Document, present: State, users: Mapping[str, User], servers: frozenset[str]
    ) -> None:
        self._document, self._present, self._servers = document, present, servers
        self._users = users
        self._by_email = {user.email.casefold(): user.id for user in users.values()}
        self._problems: list[dict[str, str]] = []

    def state(self) -> State:
        document, present = self._document, self._present
        groups, members = present.groups, present.members
        if document.groups is not None:
            groups, members = self._groups(document.groups), self._members(document.groups)
        rules, quotas = present.rules, present.quotas
        if document.rules is not None:
            rules = {id: rule for id, body in document.rules.items() if (rule := self._rule(id, body))}
        if document.quotas is not None:
            quotas = {id: quota for id, body in document.quotas.items() if (quota := self._quota(id, body))}
        for kind, entries in (("rules", rules), ("quotas", quotas)):
            if len(entries) > MOST:
                self._problem(kind, f"there are {len(entries)}, and {MOST} are the most")
            for id, entry in entries.items():
                if (group := group_of(entry)) and group not in groups:
                    self._problem(f"{kind}.{id}", f"no group has the id {group[:80]!r}")
        if self._problems:
            detail = "; ".join(f"{each['field']}: {each['problem']}" for each in self._problems[:10])
            raise BadRequest(detail, errors=self._problems[:PROBLEMS])
        return State(groups=groups, members=members, rules=rules, quotas=quotas)

    def _problem(self, field: str, problem: str) -> None:
        self._problems.append({"field": field, "problem": problem})

    def _check(self, field: str, check: Callable[[], Any]) -> Any:
        """What `check` returns; None where it finds a mistake."""
        try:
            return check()
        except BadRequest as error:
            self._problem(field, error.detail)
            return None

    def _groups(self, sections: Mapping[str, GroupSection]) -> dict[str, GroupState]:
        if DEFAULT_GROUP not in sections:
            self._problem("groups", f"{DEFAULT_GROUP!r} is missing: the default group is always there")
        return {id: self._group(id, section) for id, section in sections.items()}

    def _group(self, id: str, section: GroupSection) -> GroupState:
        self._check(f"groups.{id}", lambda: check_group(id))
        self._check(f"groups.{id}.name", lambda: check_name(section.name))
        access = {}
        for slug, body in section.servers.items():
            self._known_server(f"groups.{id}.servers", slug)
            access[slug] = self._check(f"groups.{id}.servers.{slug}", body.access)
        return GroupState(section.name, access)

    def _members(self, sections: Mapping[str, GroupSection]) -> dict[str, str]:
        members: dict[str, str] = {}
        for id, section in sections.items():
            if id == DEFAULT_GROUP and section.members:
                self._problem(f"groups.{id}.members", "it has everybody whom no other group names")
                continue
            for index, email in enumerate(section.members):
                place = f"groups.{id}.members[{index}]"
                user = self._user(place, email)
                if user in members:
                    self._problem(place, f"{email} is in {members[user]} already: everybody is in one group")
                elif user:
                    members[user] = id
        return members

    def _user(self, field: str, email: str) -> str:
        user = self._by_email.get(email.casefold(), "")
        if not user:
            self._problem(field, f"nobody has the e-mail address {email[:200]!r}")
        return user

    def _known_server(self, field: str, slug: str) -> None:
        if slug not in self._servers:
            self._problem(field, f"no server is called {slug[:80]!r}")

    def _rule(self, id: str, body: RuleBody) -> Rule | None:
        if body.scope == "user" and body.scope_id:
            body = body.model_copy(update={"scope_id": self._user(f"rules.{id}.scope_id", body.scope_id)})
            if not body.scope_id:
                return None
        rule: Rule | None = self._definition(f"rules.{id}", lambda: body.rule(id))
        return rule

    def _quota(self, id: str, body: QuotaBody) -> Quota | None:
        if body.of == "user" and body.subject:
            body = body.model_copy(update={"subject": self._user(f"quotas.{id}.subject", body.subject)})
            if not body.subject:
                return None
        quota: Quota | None = self._definition(f"quotas.{id}", lambda: body.quota(id))
        return quota

    def _definition(self, field: str, check: Callable[[], Any]) -> Any:
        found = self._check(field, check)
        for slug in sorted(servers_of(found)) if found else ():
            self._known_server(field, slug)
        return found
