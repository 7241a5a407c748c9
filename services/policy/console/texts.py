"""Commands and settings as people type them into a form."""

import shlex
from collections.abc import Mapping

from libs.common.errors import BadRequest


def command_of(text: str) -> tuple[str, ...]:
    """The program and its arguments, quoted as in a POSIX shell (2.2), of which nothing else holds. Line
    breaks are spaces. Raises `BadRequest`."""
    try:
        return tuple(shlex.split(_lines(text)))
    except ValueError as error:
        raise BadRequest(f"the command cannot be read: {error}") from error


def text_of_command(command: tuple[str, ...]) -> str:
    """What `command_of` reads as `command`."""
    return shlex.join(command)


def environment_of(text: str) -> dict[str, str]:
    """Settings, one `NAME=value` on each line; nothing is quoted. Raises `BadRequest`."""
    found: dict[str, str] = {}
    for line in _lines(text).split("\n"):
        name, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals:
            raise BadRequest(f"a line of environment is NAME=value, not {line[:80]!r}")
        if name.strip() in found:
            raise BadRequest(f"environment names {name.strip()[:80]} twice")
        found[name.strip()] = value.strip()
    return found


def text_of_environment(environment: Mapping[str, str]) -> str:
    """What `environment_of` reads as `environment`."""
    return "\n".join(f"{name}={value}" for name, value in environment.items())


def _lines(text: str) -> str:
    """`text` with the line breaks that it had before a form sent it (HTML, 4.10.21.4)."""
    return text.replace("\r\n", "\n")
