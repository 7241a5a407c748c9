"""Rules: conditions in CEL on who calls what, with which arguments, and when.

They narrow what a group may use. Of the enabled rules whose scope holds the caller and whose servers and
tools the use is among, the one of the highest priority whose condition holds decides; of equal ones deny
wins. An `allow` exempts from the denials of lower priority, and opens nothing that the group may not use. A
condition that cannot be evaluated, or is neither true nor false, denies.

They are decided for each tool, prompt or resource that a request acts on; not for lists and handshakes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from libs.common.control.entries import Rule
from libs.common.decision.conditions import Condition, InvalidCondition, condition
from libs.common.decision.facts import Facts
from libs.common.decision.subjects import Subject

if TYPE_CHECKING:
    from libs.common.decision.ladder import Climb

_UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")

INDEXES = 8  # of as many states of the log at a time: a replay holds one against another
FITTINGS = 20_000  # combinations of caller and use for which an index remembers its rules


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule with that key of the control log says. `failed`: its condition could not be evaluated."""

    allows: bool
    key: str
    detail: str = ""
    failed: bool = False


class Outcome(NamedTuple):
    """What became of one rule: whether its condition holds, or why it could not be evaluated."""

    rule: Rule
    subject: Subject
    holds: bool
    failure: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """None if the rule does not decide."""
        rule, key = self.rule, f"rule.{self.rule.id}"
        if self.failure:
            detail = rule.message or f"the rule {rule.name!r} cannot be evaluated: {self.failure}"
            return Verdict(False, key, detail, True)
        if not self.holds:
            return None
        return Verdict(rule.effect == "allow", key, rule.message or f"the rule {rule.name!r} forbids it")


def verdict(climb: "Climb") -> Verdict | None:
    """What the rules say of the climb's call: the first denial of its subjects; None if no rule holds."""
    found: Verdict | None = None
    for outcome in outcomes(climb):
        said = outcome.verdict
        if said and not said.allows:
            return said
        found = found or said
    return found


def outcomes(climb: "Climb") -> Iterable[Outcome]:
    """The rules that are looked at, in order: of each subject those up to the one that decides."""
    uses = _uses(climb)
    return _outcomes(climb, uses) if uses else ()


def read_arguments(climb: "Climb") -> bool:
    """Whether a rule for this call looks at its arguments, or cannot tell."""
    fitting = (ready for _, fitting in _uses(climb) for ready in fitting)
    return any(ready.problem or (ready.condition and ready.condition.reads("arguments")) for ready in fitting)


def _uses(climb: "Climb") -> list[tuple[Subject, tuple["_Ready", ...]]]:
    """The subjects for which there are rules, and these."""
    index = index_of(climb.tables.rules)
    found = [(subject, index.fitting(climb, subject)) for subject in climb.call.subjects]
    return [use for use in found if use[1]]


def _outcomes(climb: "Climb", uses: list[tuple[Subject, tuple["_Ready", ...]]]) -> Iterator[Outcome]:
    for subject, fitting in uses:
        facts = Facts(climb, subject)
        for ready in fitting:
            outcome = ready.outcome(facts)
            yield outcome
            if outcome.holds or outcome.failure:
                break


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """`rules` as they are looked at."""
    return sorted(rules, key=lambda rule: (-rule.priority, rule.effect == "allow", rule.id))


# -- which rules apply -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule and its compiled condition: None where it always holds, or if there is a `problem` with it."""

    rule: Rule
    condition: Condition | None = None
    problem: str = ""

    @classmethod
    def of(cls, rule: Rule) -> "_Ready":
        if not rule.condition:
            return cls(rule)
        try:
            return cls(rule, condition(rule.condition))
        except InvalidCondition as error:  # written by a version that knows more, or less
            return cls(rule, problem=str(error))

    def outcome(self, facts: Facts) -> Outcome:
        if self.problem or self.condition is None:
            return Outcome(self.rule, facts.subject, not self.problem, self.problem)
        try:
            value = self.condition.program.execute(facts.context(self.condition))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also a panic of the library, which is no Exception: fail closed
            return Outcome(self.rule, facts.subject, False, _told(error))
        if not isinstance(value, bool):
            return Outcome(self.rule, facts.subject, False, "its condition is neither true nor false")
        return Outcome(self.rule, facts.subject, value)


class Index:
    """The rules of one state of the log, compiled, and found by what they apply to."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        enabled = in_order(rule for rule in rules.values() if rule.enabled)
        self._ready = [_Ready.of(rule) for rule in enabled]
        self._users = {rule.scope_id for rule in enabled if rule.scope == "user"}
        self._groups = {rule.scope_id for rule in enabled if rule.scope == "group"}
        self._servers = {server for rule in enabled for server in rule.servers}
        self._tools = {tool for rule in enabled for tool in rule.tools}
        self._fitting: dict[tuple[str, str, str, str], tuple[_Ready, ...]] = {}

    def fitting(self, climb: "Climb", subject: Subject) -> tuple[_Ready, ...]:
        """Those that apply, in the order in which they are looked at. What no rule names is all the same."""
        user = climb.user.id if climb.user else ""
        group = climb.group.id if climb.group else ""
        server, tool = climb.call.server, subject.name
        key = (
            user if user in self._users else "",
            group if group in self._groups else "",
            server if server in self._servers else "",
            tool if subject.kind == "tool" and tool in self._tools else "",
        )
        found = self._fitting.get(key)
        if found is None:
            if len(self._fitting) >= FITTINGS:
                self._fitting.clear()
            found = self._fitting[key] = tuple(ready for ready in self._ready if _applies(ready.rule, *key))
        return found


def _applies(rule: Rule, user: str, group: str, server: str, tool: str) -> bool:
    scope_id = {"organization": "", "group": group, "user": user}[rule.scope]
    return (
        (rule.scope == "organization" or (rule.scope_id == scope_id != ""))
        and (not rule.servers or server in rule.servers)
        and (not rule.tools or tool in rule.tools)
    )


_indexes: dict[int, Index] = {}


def index_of(rules: Mapping[str, Rule]) -> Index:
    """The index of `rules`, which are another dictionary after each change (`Tables`)."""
    found = _indexes.get(id(rules))
    if found is None or found.rules is not rules:
        if len(_indexes) >= INDEXES:
            _indexes.clear()
        found = _indexes[id(rules)] = Index(rules)
    return found


def _told(error: BaseException) -> str:
    """Why a condition could not be evaluated, in one line."""
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]!r}"[:200]
    # What is undefined was refused when the rule was saved: here the types are others.
    if undefined := _UNDEFINED.match(str(error)):
        return f"{undefined[1]}() is not for a value of that type"
    return str(error).partition("\n")[0].partition(". ")[0][:200] or type(error).__name__
