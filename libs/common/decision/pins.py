"""The digest of a tool's definition: what an administrator approves, and what a server must still show.

It covers what a model reads and a client acts on: name, title, description, input and output schema,
annotations. Members that a later revision of MCP adds are outside, so that they hold nobody's tool.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from libs.common.decision.subjects import LONGEST

PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")


def canonical(tool: Mapping[str, Any]) -> str:
    """The pinned part of a tool as one text: JSON with sorted members, without white space, in ASCII.

    Absent members and `null` are the same. Integers keep all digits.
    """
    pinned = {member: tool[member] for member in PINNED if tool.get(member) is not None}
    return json.dumps(pinned, sort_keys=True, separators=(",", ":"))


def digest(definition: str) -> str:
    """SHA-256 of a `canonical` text, 43 characters of Base64 (URL alphabet, RFC 4648)."""
    return urlsafe_b64encode(hashlib.sha256(definition.encode()).digest()).decode().rstrip("=")


def is_nameable(name: str) -> bool:
    """Whether a tool of that name can be called, and be told from others by those who approve it."""
    return 0 < len(name) <= LONGEST["tool"] and name.isprintable()
