"""Names of environment variables that may be set for the process of a server."""

import re

from libs.common.errors import BadRequest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")  # POSIX.1-2024, section 8.1, and no longer than useful
_OURS = "LOCKGATE_"


def check_variable(name: str) -> str:
    """`name` if it may be set. Raises `BadRequest`.

    Whoever sets variables chooses the command too, so that `LD_PRELOAD` or `NODE_OPTIONS` give them nothing
    new; what configures Lockgate itself is not theirs.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is no name of an environment variable: up to 128 letters, digits and underscores "
            "that do not begin with a digit"
        )
    if name.upper().startswith(_OURS):
        raise BadRequest(f"{name} is a setting of Lockgate itself; no server gets those")
    return name
