"""What a group may use of a server, as the form shows it: a tick for each thing that is known."""

from dataclasses import dataclass

from libs.common.control.entries import ServerAccess
from services.policy.domain import Group, Server
from services.policy.features import KINDS, Feature, Kind, named, verdict

# A form has at most 1000 fields, and a page an end. What is not shown keeps its verdict.
SHOWN = 300


@dataclass(frozen=True, slots=True)
class Tick:
    """One line. `offered`: the server lists it, as far as is known."""

    name: str
    description: str
    ticked: bool
    offered: bool


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of one kind, and how many `more` there are."""

    kind: Kind
    ticks: list[Tick]
    more: int


@dataclass(frozen=True, slots=True)
class Choices:
    """The form for one group and one server. `mode` is that of `AccessForm`."""

    group: Group
    server: Server
    mode: str
    sections: list[Section]

    @classmethod
    def of(cls, group: Group, server: Server) -> "Choices":
        access = group.servers.get(server.slug)
        sections = [_section(server, access, kind) for kind in KINDS]
        shown = [section for section in sections if section.ticks]
        return cls(group, server, access.default if access else "none", shown)

    @property
    def access(self) -> ServerAccess | None:
        return self.group.servers.get(self.server.slug)

    @property
    def exceptions(self) -> int:
        """How many verdicts differ from the default."""
        verdicts = [verdict for kind in KINDS for verdict in named(self.access, kind).values()]
        return sum(verdict != self.mode for verdict in verdicts)


def _section(server: Server, access: ServerAccess | None, kind: Kind) -> Section:
    offered = server.features.of(kind)
    names = {feature.name for feature in offered}
    unlisted = [Feature(name) for name in named(access, kind) if name not in names]
    lines = [*offered, *unlisted]
    ticks = [
        Tick(
            feature.name,
            feature.description,
            access is None or verdict(access, kind, feature.name) == "allow",
            feature.name in names,
        )
        for feature in lines[:SHOWN]
    ]
    return Section(kind, ticks, len(lines) - len(ticks))
