"""`lockgate export`, `plan` and `apply`: access as code, over the HTTP API of a running Lockgate."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

LONGEST = 8 * 1024 * 1024  # bytes of a document
NAMES_SHOWN = 12  # things that somebody gains or loses, in one line
API = "/api/policy/access"


class AccessFailed(Exception):
    """It did not work; the message says why, in a sentence or one line for each mistake."""


# What the library raises for values that are not what their tags or their looks say, such as 2026-99-99.
_BAD_VALUES = (ValueError, TypeError, KeyError, AttributeError)


class _Loader(yaml.SafeLoader):
    """YAML without keys that stand twice and without aliases: each is a mistake sooner or later."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not part of it", problem_mark=self.line_mark)
        return super().compose_node(parent, index)

    @property
    def line_mark(self) -> yaml.Mark:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call,no-any-return]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r} stands twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def read(path: Path) -> dict[str, Any]:
    """The document in the file at `path`. Raises `AccessFailed`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise AccessFailed(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > LONGEST:
        raise AccessFailed(f"{path} is larger than {LONGEST // 1024 // 1024} MiB.")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise AccessFailed(f"{path}{place}: {error.problem}.") from error
    except (yaml.YAMLError, *_BAD_VALUES, RecursionError) as error:
        raise AccessFailed(f"{path} is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise AccessFailed(f"{path} does not hold an access document: it begins with `version: 1`.")
    try:
        json.dumps(document, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        told = "holds something that is no text or number (dates need quotes)"
        raise AccessFailed(f"{path} {told}: {error}") from error
    return document


def written(document: dict[str, Any]) -> str:
    """`document` as YAML."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


@dataclass(frozen=True)
class Remote:
    """The API of a Lockgate. All raise `AccessFailed`."""

    http: httpx2.Client  # with its origin and an administrator's token

    def document(self) -> dict[str, Any]:
        return self._ask("GET", API)

    def plan(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", f"{API}/plan", document)

    def apply(self, document: dict[str, Any], etag: str) -> dict[str, Any]:
        """Apply what was planned: `etag` is the plan's."""
        return self._ask("PUT", API, document, {"If-Match": f'"{etag}"'})

    def _ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self.http.request(method, path, json=body, headers=headers)
            told: dict[str, Any] = answer.json()
        except httpx2.HTTPError as error:
            raise AccessFailed(f"The connection failed: {error or type(error).__name__}.") from error
        except ValueError as error:
            raise AccessFailed(f"{self.http.base_url} does not answer as Lockgate does.") from error
        if answer.status_code >= 400:
            raise AccessFailed(_complaint(answer.status_code, told))
        return told


def _complaint(status: int, told: dict[str, Any]) -> str:
    if errors := told.get("errors"):
        return "\n".join(f"{each['field']}: {each['problem']}" for each in errors)
    if status in {401, 403}:
        return "The token is not that of an administrator, or no longer good: sign in again."
    return str(told.get("detail") or told.get("title") or f"HTTP status {status}")


# -- what people read ------------------------------------------------------------------------------

_SIGNS = {"create": "+", "change": "~", "remove": "-"}


def lines(plan: dict[str, Any]) -> Iterator[str]:
    """A plan for people: what changes, and who gains and loses what. Lines begin with `+`, `-` or `~`."""
    if not plan["differences"]:
        yield "Nothing differs: all is as the document says."
        return
    yield "What changes"
    for each in plan["differences"]:
        yield f"{_SIGNS[each['what']]} {_change(each)}"
    yield ""
    if not plan["effects"]:
        yield "Nobody gains or loses a tool, prompt or resource."
    else:
        yield "Who gains and who loses"
    for effect in plan["effects"]:
        yield from _effect(effect)
    if plan["more_effects"]:
        yield f"... and {plan['more_effects']} more like these"


def _change(each: dict[str, Any]) -> str:
    kind, _, name = each["key"].partition(".")
    before, after = each["before"], each["after"]
    if kind == "member":
        return f"member {name}: {before or 'default'} -> {after or 'default'}"
    if each["what"] != "change":
        return f"{kind} {name}"
    parts = [_part(field, before.get(field), after.get(field)) for field in before.keys() | after.keys()]
    return f"{kind} {name}: {', '.join(sorted(part for part in parts if part))}"


def _part(field: str, before: Any, after: Any) -> str:
    if before == after:
        return ""
    if isinstance(before, dict) and isinstance(after, dict):
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        return f"{field} ({', '.join(changed)})"
    return f"{field} {before!r} -> {after!r}"


def _effect(effect: dict[str, Any]) -> Iterator[str]:
    others = effect["count"] - len(effect["people"])
    people = ", ".join(effect["people"]) + (f" and {others} others" if others > 0 else "")
    moved = effect["before"] != effect["after"]
    groups = f"{effect['before']} -> {effect['after']}" if moved else effect["after"]
    yield f"  {effect['server']}: {people} ({groups})"
    for sign, verb in (("+", "gains"), ("-", "loses")):
        names = list(effect[verb])
        if effect["later"] == verb:
            names.append("tools that appear later")
        for start in range(0, len(names), NAMES_SHOWN):
            yield f"    {sign} {', '.join(names[start : start + NAMES_SHOWN])}"
