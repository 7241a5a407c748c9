"""How large an entry of the control log may be."""

from typing import TypeVar

import msgspec

from libs.common.errors import BadRequest
from services.policy.domain import Group, Server

# A message of the bus has at most 1 MiB. One that is larger could not be written, now or later, and what an
# administrator was told is done would never hold.
LIMIT = 1_000_000

T = TypeVar("T", Group, Server)


def fitting(thing: T) -> T:
    """`thing`, if the control log can hold its entry. Raises `BadRequest`."""
    size = len(msgspec.json.encode(thing.entry()))
    if size > LIMIT:
        raise BadRequest(
            f"What there is to say of it takes {size:,} bytes, and gateways take {LIMIT:,} at the most: name "
            "fewer tools, prompts or resources"
        )
    return thing
