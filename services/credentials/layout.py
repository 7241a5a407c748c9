"""Where a server wants to see a credential: named fields, and templates that place them in headers, the query
or the environment. Nothing here does I/O."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from libs.common.control.entries import Server
from libs.common.environment import check_variable
from libs.common.errors import BadRequest
from libs.common.requests import Injection
from services.credentials.domain import Kind, Provider

VALUE_LENGTH = 16384  # characters; tokens of some providers are long
TEMPLATE_LENGTH = 200
NAME_LENGTH = 100
TEXT_LENGTH = 200  # of labels and help
MOST = 10  # fields, and placements, of one server

Into: TypeAlias = Literal["header", "query", "environment"]

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HOLE = re.compile(r"\{(base64:)?([a-z][a-z0-9_]*(?::[a-z][a-z0-9_]*)*)\}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_PARAMETER = re.compile(r"[A-Za-z0-9._~\[\]$-]+")

# Headers that belong to the connection, the message or the protocol, and so to the gateway.
_RESERVED = frozenset({
    "accept", "accept-charset", "accept-encoding", "accept-language", "connection", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-range",
    "content-type", "date", "expect", "forwarded", "host", "http2-settings", "keep-alive", "last-event-id",
    "max-forwards", "origin", "range", "referer", "te", "trailer", "trailers", "transfer-encoding", "upgrade",
    "via", "x-real-ip",
})  # fmt: skip
_RESERVED_PREFIXES = ("mcp-", "proxy-", "sec-", "access-control-", "if-", "x-forwarded-", "lockgate-")


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a person enters. One that is not `secret` is shown while it is typed; none is shown
    again. Raises `BadRequest`."""

    name: str
    label: str = ""
    secret: bool = True
    help: str = ""

    def __post_init__(self) -> None:
        if not _FIELD.fullmatch(self.name):
            raise BadRequest(
                f"{self.name[:80]!r} is no name of a field: up to 40 small letters, digits and underscores, "
                "a letter first"
            )
        if len(self.label) > TEXT_LENGTH or len(self.help) > TEXT_LENGTH:
            raise BadRequest(f"label and help of a field have at most {TEXT_LENGTH} characters")

    @property
    def title(self) -> str:
        """What people call it."""
        return self.label or self.name.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where values go. `template` is the header's or variable's value, with `{field}` for the value of that
    field, and `{base64:user:password}` for the Base64 of several, joined by colons (RFC 7617). Other braces
    stand for themselves. Raises `BadRequest`."""

    into: Into
    name: str
    template: str

    def __post_init__(self) -> None:
        _CHECK_NAME[self.into](self.name)
        if not self.fields or len(self.template) > TEMPLATE_LENGTH:
            raise BadRequest(
                "the template must name a field, such as 'Bearer {key}', "
                f"and have at most {TEMPLATE_LENGTH} characters"
            )
        _CHECK_VALUE[self.into]("template", self.template)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the template names."""
        return frozenset(name for hole in _HOLE.finditer(self.template) for name in hole[2].split(":"))

    def render(self, values: Mapping[str, str]) -> str:
        """What to send. `values` has every field that the template names."""

        def fill(hole: re.Match[str]) -> str:
            text = ":".join(values[name] for name in hole[2].split(":"))
            return base64.b64encode(text.encode()).decode() if hole[1] else text

        return _HOLE.sub(fill, self.template)

    def __str__(self) -> str:
        between = {"header": ": ", "query": "=", "environment": "="}[self.into]
        return f"{'?' if self.into == 'query' else ''}{self.name}{between}{self.template}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a server's credential, and where they go. Raises `BadRequest`."""

    fields: tuple[Field, ...]
    placements: tuple[Placement, ...]

    def __post_init__(self) -> None:
        names = [item.name for item in self.fields]
        places = [(item.into, item.name.lower()) for item in self.placements]
        used = frozenset[str]().union(*(item.fields for item in self.placements))
        if not (0 < len(names) <= MOST and 0 < len(places) <= MOST):
            raise BadRequest(
                f"a credential has between 1 and {MOST} fields, and as many places where they go"
            )
        if len(set(names)) < len(names) or len(set(places)) < len(places):
            raise BadRequest("two fields have the same name, or two of them go to the same place")
        if unknown := sorted(used - set(names)):
            raise BadRequest(f"the template names a field that there is not: {unknown[0]}")
        if unused := sorted(set(names) - used):
            raise BadRequest(f"no template names the field {unused[0]}: the template must name each")

    @property
    def names(self) -> frozenset[str]:
        return frozenset(item.name for item in self.fields)

    def check_fits(self, server: Server) -> None:
        """Raise `BadRequest` unless `server` takes values there: stdio has an environment, HTTP has headers
        and a query."""
        for item in self.placements:
            if server.transport == "stdio" and item.into != "environment":
                raise BadRequest(
                    f"{server.slug} is a command and gets no headers and no query: name the environment "
                    "variable that it reads"
                )
            if server.transport != "stdio" and item.into == "environment":
                raise BadRequest(
                    f"{server.slug} is reached over HTTP and has no environment here: name a header"
                )
            if item.into == "environment" and item.name in server.environment:
                raise BadRequest(
                    f"{item.name} is a plain setting of {server.slug} already: remove it there first"
                )

    def render(self, values: Mapping[str, str]) -> Injection:
        """What to add to a request or an environment. A header's name is in lower case, as HTTP does not
        care; a query's values are not yet percent-encoded. Raises `BadRequest` where `values` do not fit."""
        self.check(values)
        rendered: dict[Into, dict[str, str]] = {"header": {}, "query": {}, "environment": {}}
        for item in self.placements:
            name = item.name.lower() if item.into == "header" else item.name
            rendered[item.into][name] = item.render(values)
        return Injection(
            headers=rendered["header"], query=rendered["query"], environment=rendered["environment"]
        )

    def check(self, values: Mapping[str, str]) -> None:
        """Raise `BadRequest`, which repeats none of them, unless `values` can stand where they go."""
        if values.keys() != self.names:
            wanted = ", ".join(item.name for item in self.fields)
            raise BadRequest(f"the fields of this credential are: {wanted}")
        for name, value in values.items():
            if not value:
                raise BadRequest(f"the {name} is empty")
            if len(value) > VALUE_LENGTH:
                raise BadRequest(f"the {name} has more than {VALUE_LENGTH} characters")
            _check_encodable(name, value)
        for item in self.placements:
            for name in sorted(item.fields):
                if f"{{{name}}}" in item.template:
                    _CHECK_VALUE[item.into](name, values[name])
            _CHECK_VALUE[item.into](", ".join(sorted(item.fields)), item.render(values))


def check_header(name: str) -> None:
    """Raise `BadRequest` unless a credential may set the header of that name."""
    if len(name) > NAME_LENGTH or not _TOKEN.fullmatch(name):
        raise BadRequest(f"{name[:80]!r} is no name of a header")
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise BadRequest(f"the header {name} belongs to the connection or the protocol, not to a key")


def check_parameter(name: str) -> None:
    """Raise `BadRequest` unless `name` can be that of a query parameter as it is."""
    if len(name) > NAME_LENGTH or not _PARAMETER.fullmatch(name):
        raise BadRequest(f"{name[:80]!r} is no name of a query parameter that can be sent as it is")


def _check_variable(name: str) -> None:
    check_variable(name)


def _check_header_value(name: str, value: str) -> None:
    if not _HEADER_VALUE.fullmatch(value):
        raise BadRequest(
            f"the {name} holds a character that a header cannot carry: only printable ASCII, no line breaks, "
            "and no white space at its ends"
        )


def _check_query_value(name: str, value: str) -> None:
    if not value.isprintable():
        raise BadRequest(f"the {name} holds a character that a query cannot carry")


def _check_environment_value(name: str, value: str) -> None:
    """POSIX.1-2024, section 8.1."""
    if "\0" in value:
        raise BadRequest(f"the {name} holds a character that an environment variable cannot carry")


def _check_encodable(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise BadRequest(f"the {name} holds a character that cannot be encoded") from None


_CHECK_NAME = {"header": check_header, "query": check_parameter, "environment": _check_variable}
_CHECK_VALUE = {
    "header": _check_header_value,
    "query": _check_query_value,
    "environment": _check_environment_value,
}


def default_template(header: str) -> str:
    """The usual template for `header`: RFC 6750 for Authorization, else the bare key."""
    return "Bearer {key}" if header.lower() == "authorization" else "{key}"


def one_key(into: Into, name: str, template: str) -> Layout:
    """A layout of one field, `key`, in one place."""
    return Layout((Field("key"),), (Placement(into, name, template),))


# Where nothing is configured.
BEARER = one_key("header", "Authorization", "Bearer {key}")
BEARER_TOKEN = Layout(
    (Field("access_token"),), (Placement("header", "Authorization", "Bearer {access_token}"),)
)


def encode(layout: Layout) -> str:
    """As a provider keeps it."""
    return msgspec.json.encode(layout).decode()


def layout_of(provider: Provider | None, kind: Kind) -> Layout:
    """How credentials of that kind are placed, as `provider` says or by default."""
    if provider is None or provider.kind != kind or not provider.layout:
        return BEARER if kind == "api_key" else BEARER_TOKEN
    return msgspec.json.decode(provider.layout, type=Layout)
