"""Pins: which definition of each tool is approved, and what waits for an administrator (pure).

A definition is known by its digest (libs.common.decision.pins). What is seen first is approved in silence,
unless the server's new tools wait for review; what is seen instead of it later waits, until somebody approves
one of the two, whatever the server shows in the meantime. A pin outlives its tool: one that comes back has to
be what it was.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec

from libs.common.control.entries import Held
from libs.common.decision.pins import digest, is_nameable
from libs.common.decision.subjects import LONGEST
from libs.common.definitions import Definition as ToolDefinition
from libs.common.errors import Conflict, NotFound
from services.policy.definition import Definition

MOST = 2000  # of one server
# The server's entry names each tool once or twice, and has to fit into one message of the bus.
NAMES = 250_000  # bytes of the names of one server's tools, as JSON has them

State: TypeAlias = Literal["approved", "unseen", "changed", "new"]


class UnknownTool(NotFound):
    type, title = "unknown-tool", "There is no such tool"


class NotOffered(Conflict):
    """The digest stands for no definition that could be approved or rejected."""

    type, title = "definition-changed", "This is not the definition that waits"

    def __init__(self) -> None:
        super().__init__("The server shows another one by now: look at that, and decide again.")


@dataclass(frozen=True, slots=True)
class Pin:
    """`digest` is approved; empty while nothing is. `offered` is what the server shows instead, and what
    waits `since` then (ISO 8601); empty when nothing does. `rejected`: somebody has looked, and the tool
    stays held. `version` is that of the server when somebody decided; reports from before it do not count."""

    digest: str = ""
    offered: str = ""
    since: str = ""
    rejected: bool = False
    version: int = 0

    @property
    def held(self) -> Held | None:
        """Why nobody can use the tool."""
        if not self.offered:
            return None
        return "changed" if self.digest else "new"

    @property
    def state(self) -> State:
        return self.held or ("approved" if self.digest else "unseen")

    def approved(self, digest: str, version: int) -> "Pin":
        """With `digest` approved, be it the new definition or the old. Raises `NotOffered`."""
        if digest not in {self.digest, self.offered} - {""}:
            raise NotOffered
        return self if digest == self.digest and not self.offered else Pin(digest, version=version)

    def refused(self, digest: str, version: int) -> "Pin":
        """With what is offered rejected. Raises `NotOffered`."""
        if not digest or digest != self.offered:
            raise NotOffered
        return self if self.rejected else replace(self, rejected=True, version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a server was seen to list, by somebody who knew its entry as of `version`. `adopt`: new tools are
    approved, whatever the server's setting is."""

    definitions: Collection[ToolDefinition]
    version: int
    adopt: bool = False

    @property
    def texts(self) -> dict[str, str]:
        """The definitions by digest, as far as they are here."""
        return {one.digest: one.text for one in self.definitions if digest(one.text) == one.digest}


NOTHING = Sight(definitions=(), version=0)


def seen(
    pins: Mapping[str, Pin], known: Collection[str], sight: Sight, settings: Definition, at: str
) -> dict[str, Pin]:
    """The pins that are otherwise after `sight`. `known` are the names of the server's tools."""
    names = _Names([*known, *pins])
    changed: dict[str, Pin] = {}
    for one in sight.definitions:
        pin = changed.get(one.name) or pins.get(one.name)
        if settings.pinning == "off":
            after = Pin(one.digest, version=pin.version if pin else 0)
        elif pin or one.name in names:
            after = _seen_again(pin or Pin(), one.digest, sight.version, at)
        elif sight.adopt or (settings.new_tools == "allow" and not names.have_like(one.name)):
            after = Pin(one.digest)
        else:
            after = Pin(offered=one.digest, since=at)
        if after != pin and names.take(one.name):
            changed[one.name] = after
    return changed


def is_full(names: Collection[str]) -> bool:
    """Whether there may be tools of which no pin is kept, since there are so many."""
    return len(names) >= MOST or _size(names) > NAMES - 4 * LONGEST["tool"]


def _seen_again(pin: Pin, digest: str, version: int, at: str) -> Pin:
    """`pin` after somebody who knew the server's entry as of `version` saw its tool with `digest`."""
    if version < pin.version or digest in {pin.digest, pin.offered}:
        return pin
    if not pin.held and not pin.digest:
        return replace(pin, digest=digest)
    return replace(pin, offered=digest, since=at, rejected=False)


class _Names:
    """The names of a server's tools, and whether there may be more."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = set(names)
        self._folded = {name.casefold() for name in names}
        self._room = NAMES - _size(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def have_like(self, name: str) -> bool:
        """Whether a new tool could be taken for another one. MCP wants names in ASCII (2025-11-25,
        server/tools "Tool Names"), and what is not may look like anything."""
        return not name.isascii() or name.casefold() in self._folded

    def take(self, name: str) -> bool:
        """Whether a pin of that name can be kept."""
        if name in self._names:
            return True
        room = self._room - _size([name]) if is_nameable(name) else -1
        if room < 0 or len(self._names) >= MOST:
            return False
        self._room = room
        self._names.add(name)
        self._folded.add(name.casefold())
        return True


def _size(names: Collection[str]) -> int:
    return sum(len(msgspec.json.encode(name)) for name in names)
