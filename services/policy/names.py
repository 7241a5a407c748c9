"""Names and texts that administrators give, and what they may hold."""

import re
from collections.abc import Set

from libs.common.errors import BadRequest

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# `/mcp/sse` is HTTP+SSE for all servers together; the others are pages beside those of each server and group.
RESERVED_SLUGS = {"sse", "switches"}
RESERVED_GROUPS = {"rules", "quotas", "explain"}
NAME_LENGTH = 100
REASON_LENGTH = 500


def check_slug(slug: str) -> str:
    """`slug` if it can name a server. Raises `BadRequest`."""
    return _check_free(_check_form(slug, "slug"), "slug", RESERVED_SLUGS)


def check_group(group: str) -> str:
    """`group` if it can be a group's id. Raises `BadRequest`."""
    return _check_free(_check_form(group, "id of a group"), "id", RESERVED_GROUPS)


def check_id(id: str, what: str) -> str:
    """`id` if a rule or quota (`what`) can have it: it is part of a key of the control log. Raises
    `BadRequest`."""
    return _check_form(id, f"id of a {what}")


def check_name(name: str) -> str:
    """`name` if it can stand on a page. Raises `BadRequest`."""
    if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadRequest(f"a name has 1 to {NAME_LENGTH} printable characters")
    return name


def check_reason(reason: str) -> str:
    """`reason` if it is short enough to be shown to callers. Raises `BadRequest`."""
    if len(reason) > REASON_LENGTH or not reason.isprintable():
        raise BadRequest(f"a reason has at most {REASON_LENGTH} printable characters")
    return reason


def _check_free(name: str, what: str, reserved: Set[str]) -> str:
    if name in reserved:
        raise BadRequest(f"{name} stands for something else in URLs: choose another {what}")
    return name


def _check_form(name: str, what: str) -> str:
    if not SLUG.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is no {what}: up to 63 lower-case letters, digits and hyphens, "
            "beginning with a letter or digit"
        )
    return name
