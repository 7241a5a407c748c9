"""Identifiers: sortable by time where rows are listed, opaque everywhere."""

import base64
import os
import secrets
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """A ULID in lower case: 26 characters, the first ten say the millisecond, the rest is random."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_secret(octets: int = 32) -> str:
    """An unguessable URL-safe string of `octets` random bytes."""
    return base64.urlsafe_b64encode(secrets.token_bytes(octets)).rstrip(b"=").decode()
