"""What a server offers (tools, prompts, resources), and what a group may use of it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from libs.common.control.entries import Access, ServerAccess
from libs.common.errors import BadRequest
from services.policy.names import check_slug

Kind: TypeAlias = Literal["tools", "prompts", "resources"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FEATURES_PER_KIND = 2000
DESCRIPTION_LENGTH = 300
NAME_LENGTH: Mapping[Kind, int] = {"tools": 256, "prompts": 256, "resources": 2000}


@dataclass(frozen=True, slots=True)
class Feature:
    """A tool or a prompt by its name, a resource by its URI or, with `*` at the end, by the beginning of it.
    The description is its server's, for people to read."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Features:
    """What a server is known to offer."""

    tools: tuple[Feature, ...] = ()
    prompts: tuple[Feature, ...] = ()
    resources: tuple[Feature, ...] = ()

    def of(self, kind: Kind) -> tuple[Feature, ...]:
        found: tuple[Feature, ...] = getattr(self, kind)
        return found

    def __iter__(self) -> Iterator[tuple[Kind, tuple[Feature, ...]]]:
        """The kinds in order, each with what is known of it."""
        return ((kind, self.of(kind)) for kind in KINDS)

    def renamed(self, names: Mapping[Kind, Collection[str]]) -> "Features":
        """These, but of the kinds in `names` exactly what is named there. Raises `BadRequest`."""
        return replace(self, **{kind: self._named(kind, named) for kind, named in names.items()})

    def _named(self, kind: Kind, names: Collection[str]) -> tuple[Feature, ...]:
        known = {feature.name: feature for feature in self.of(kind)}
        return tuple(known.get(name, Feature(name)) for name in check_names(kind, names))


def can_name(kind: Kind, name: str) -> bool:
    """Whether something of that `kind` can be called `name`."""
    return 0 < len(name) <= NAME_LENGTH[kind] and name.isprintable()


def check_tool(path: str) -> str:
    """`path` if it names a tool and its server: `<slug>/<tool>`. Raises `BadRequest`."""
    slug, slash, tool = path.partition("/")
    if not slash or not can_name("tools", tool):
        raise BadRequest("a tool is named by its server's slug and its name, such as wiki/search")
    check_slug(slug)
    return path


def check_names(kind: Kind, names: Collection[str]) -> list[str]:
    """`names` without repetitions if each can name something of that `kind`. Raises `BadRequest`."""
    if len(names) > FEATURES_PER_KIND:
        raise BadRequest(f"a server has at most {FEATURES_PER_KIND} {kind} here")
    for name in names:
        if not can_name(kind, name):
            what = "the URI of a resource" if kind == "resources" else f"the name of a {kind[:-1]}"
            raise BadRequest(f"{name[:80]!r} cannot be {what}")
    return list(dict.fromkeys(names))


def told(kind: Kind, offered: Iterable[tuple[str, str | None]]) -> tuple[Feature, ...]:
    """What a server says that it offers, as `(name, description)`, within the limits that hold here."""
    found: dict[str, Feature] = {}
    for name, description in offered:
        if len(found) >= FEATURES_PER_KIND:
            break
        if can_name(kind, name):
            found.setdefault(name, Feature(name, _first_line(description)))
    return tuple(found.values())


def beginning_of(template: str) -> str:
    """What stands for all resources of a URI template (RFC 6570): the beginning that they share, and `*`."""
    beginning, brace, _ = template.partition("{")
    return f"{beginning}*" if brace else template


def _first_line(description: str | None) -> str:
    lines = (description or "").strip().splitlines()
    return lines[0].strip()[:DESCRIPTION_LENGTH] if lines else ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the `known` ones of a kind were `ticked`."""

    known: Collection[str]
    ticked: Collection[str]


def chosen(
    default: Access, choices: Mapping[Kind, Choice], present: ServerAccess | None = None
) -> ServerAccess:
    """Access to exactly the ticked ones of those known. `default` is for what appears later; what is not
    among the known ones keeps the verdict that it has at `present`."""
    verdicts = {kind: _verdicts(kind, default, choice, present) for kind, choice in choices.items()}
    return ServerAccess(default=default, **verdicts)


def _verdicts(kind: Kind, default: Access, choice: Choice, present: ServerAccess | None) -> dict[str, Access]:
    """The verdicts that differ from `default`; all of them for resources if any does, since gateways take a
    URI that is not named for any other spelling of it."""
    verdicts = {name: verdict for name, verdict in named(present, kind).items() if name not in choice.known}
    ticked = set(choice.ticked)
    verdicts |= {name: "allow" if name in ticked else "deny" for name in choice.known}
    differing = {name: verdict for name, verdict in verdicts.items() if verdict != default}
    return verdicts if differing and kind == "resources" else differing


def named(access: ServerAccess | None, kind: Kind) -> Mapping[str, Access]:
    """The verdicts on what `access` names of that `kind`."""
    verdicts: dict[str, Access] = getattr(access, kind) if access else {}
    return verdicts


def verdict(access: ServerAccess, kind: Kind, name: str) -> Access:
    """The verdict of `access` on `name`, as it stands written."""
    verdicts = named(access, kind)
    fitting = [key for key in verdicts if key.endswith("*") and name.startswith(key[:-1])]
    if name in verdicts or kind != "resources" or not fitting:
        return verdicts.get(name, access.default)
    return verdicts[max(fitting, key=len)]
