"""What conditions see of one use of a tool, prompt or resource: the variables of conditions.py."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cel

from libs.common.decision import zones
from libs.common.decision.arguments import MOST, Extent, Unfit, measure
from libs.common.decision.conditions import Condition
from libs.common.decision.subjects import Subject

if TYPE_CHECKING:
    from libs.common.decision.ladder import Climb


class Facts:
    """The variables, each converted for CEL when the first condition reads it."""

    def __init__(self, climb: "Climb", subject: Subject) -> None:
        self._climb, self.subject = climb, subject
        self._context = cel.Context(functions=zones.FUNCTIONS)
        self._given: set[str] = set()
        self._extent: Extent | Unfit | None = None

    def context(self, condition: Condition) -> cel.Context:
        """All that `condition` reads, and perhaps more. Raises `Unfit`."""
        if condition.reads("arguments"):
            self._check(MOST[condition.nesting])
        for name in condition.variables - self._given:
            self._context.add_variable(name, _VALUES[name](self._climb, self.subject))
            self._given.add(name)
        return self._context

    def _check(self, most: Extent) -> None:
        if self._extent is None:
            try:
                self._extent = measure(self._climb.call.arguments)
            except Unfit as error:
                self._extent = error
        if isinstance(self._extent, Unfit):
            raise self._extent
        if not self._extent.within(most):
            raise Unfit("the arguments are too large for a condition with loops")


def _user(climb: "Climb", _: Subject) -> dict[str, str]:
    user = climb.user
    assert user
    return {"id": user.id, "email": user.email, "name": user.name, "role": user.role}


def _group(climb: "Climb", _: Subject) -> dict[str, str]:
    group = climb.group
    return {"id": group.id, "name": group.name} if group else {"id": "", "name": ""}


def _client(climb: "Climb", _: Subject) -> dict[str, str]:
    return {"id": climb.claims.client_id, "name": climb.claims.client_name}


def _server(climb: "Climb", _: Subject) -> dict[str, str]:
    server = climb.server
    assert server
    return {"slug": server.slug, "name": server.name}


_VALUES: dict[str, Callable[["Climb", Subject], Any]] = {
    "user": _user,
    "group": _group,
    "client": _client,
    "server": _server,
    "method": lambda climb, _: climb.call.method,
    "kind": lambda _, subject: subject.kind,
    "name": lambda _, subject: subject.name,
    "tool": lambda _, subject: subject.name if subject.kind == "tool" else "",
    "arguments": lambda climb, _: dict(climb.call.arguments),
    "now": lambda climb, _: climb.at or datetime.now(UTC),
}
