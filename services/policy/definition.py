"""What an administrator says about a server: where it is or which command it is, and how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from libs.common.control.entries import AuthType, Bridge, NewTools, Pinning, Processes, Transport
from libs.common.environment import check_variable
from libs.common.errors import BadRequest
from services.policy.names import check_name

URL_LENGTH = 2000
ARGUMENTS = 100
ARGUMENT_LENGTH = 4096
VARIABLES = 100
VALUE_LENGTH = 4096

# What the default group may use of a server that is being added.
InitialAccess: TypeAlias = Literal["allow", "deny", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A server's settings, times in seconds. Raises `BadRequest` for bad values.

    A server is reached at `url`, or is a process of `command` (the program and its arguments) for stdio.
    `pinning` says whether a tool whose definition changes is held until somebody approves it, and `new_tools`
    whether one that appears later is.
    """

    name: str
    url: str = ""
    transport: Transport = "streamable_http"
    bridge: Bridge = "auto"
    auth: AuthType = "none"
    connect_timeout: float = 5.0
    response_timeout: float = 120.0
    idle_timeout: float = 60.0
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: Processes = "shared"
    idle_stop: float = 600.0
    new_tools: NewTools = "allow"
    pinning: Pinning = "enforce"

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_choice("transport", self.transport, get_args(Transport))
        _check_choice("bridge", self.bridge, get_args(Bridge))
        _check_choice("processes", self.processes, get_args(Processes))
        _check_choice("auth", self.auth, get_args(AuthType))
        _check_choice("new_tools", self.new_tools, get_args(NewTools))
        _check_choice("pinning", self.pinning, get_args(Pinning))
        if self.new_tools == "review" and self.pinning == "off":
            raise BadRequest("new_tools can only be reviewed where pinning is enforce")
        if self.transport == "stdio":
            self._check_process()
        else:
            self._check_address()
        _check_seconds("connect_timeout", self.connect_timeout, 0.1, 60)
        _check_seconds("response_timeout", self.response_timeout, 1, 3600)
        _check_seconds("idle_timeout", self.idle_timeout, 1, 3600)
        _check_seconds("idle_stop", self.idle_stop, 1, 7 * 24 * 3600)

    def _check_address(self) -> None:
        if self.command or self.environment:
            raise BadRequest("command and environment are for stdio servers; this one is reached at its url")
        if self.processes != "shared":
            raise BadRequest("processes is for stdio servers; where this one runs is its own business")
        if not self.url:
            raise BadRequest(f"a server over {self.transport} needs a url")
        check_url(self.url)

    def _check_process(self) -> None:
        if self.url:
            raise BadRequest("a stdio server has no url: it is a command that Lockgate runs")
        check_command(self.command)
        check_environment(self.environment)


def check_url(url: str) -> str:
    """`url` if an upstream can be at it: http or https, a host, no user, password or fragment (RFC 3986)."""
    if len(url) > URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise BadRequest(f"the URL must be at most {URL_LENGTH} ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0
    except ValueError as error:
        raise BadRequest(f"the URL cannot be read: {error}") from error
    if parts.scheme not in {"http", "https"}:
        raise BadRequest("the URL must begin with http:// or https://")
    if not parts.hostname or not port_is_fine:
        raise BadRequest("the URL must name a host, such as https://mcp.example.com/mcp")
    if "@" in parts.netloc:
        raise BadRequest("the URL must not hold a user or password: give the server a credential instead")
    if "#" in url:
        raise BadRequest("the URL must not have a fragment (#)")
    return url


def check_command(command: tuple[str, ...]) -> None:
    """Raise `BadRequest` unless it is a program and its arguments. There is no shell, so that none of them
    means anything special."""
    if not command or not command[0].strip():
        raise BadRequest("a stdio server needs a command: the program and its arguments")
    if len(command) > ARGUMENTS or any(len(part) > ARGUMENT_LENGTH for part in command):
        raise BadRequest(
            f"a command has at most {ARGUMENTS} parts of at most {ARGUMENT_LENGTH} characters each"
        )
    if not all(_is_text(part) for part in command):
        raise BadRequest("the command holds a character that cannot be printed")
    if "=" in command[0]:
        raise BadRequest(
            f"the command begins with {command[0][:80]!r}, which is a setting and no program: settings go "
            "into environment, secrets into a credential"
        )


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise `BadRequest` unless each is a variable with a value that a page can show in one line."""
    if len(environment) > VARIABLES:
        raise BadRequest(f"environment has at most {VARIABLES} variables")
    for name, value in environment.items():
        check_variable(name)
        if len(value) > VALUE_LENGTH or not value.replace("\t", "").isprintable():
            raise BadRequest(
                f"the value of {name} must be at most {VALUE_LENGTH} printable characters in one line"
            )


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _is_text(part: str) -> bool:
    return part.replace("\n", "").replace("\t", "").isprintable()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadRequest(f"{name} {value!r} is none of {', '.join(choices)}")


def _check_seconds(name: str, value: float, least: float, most: float) -> None:
    """Raise `BadRequest` unless `value` lies between the two."""
    if not least <= value <= most:  # NaN is not between them either
        raise BadRequest(f"{name} must be between {least:g} and {most:g} seconds")
