"""Session ids bound to their caller: `<upstream's id>.<MAC>`, valid on every replica, stored nowhere.

With a credential injected the upstream sees one principal, so its own check of who owns a session protects
nothing (MCP 2025-11-25, basic/transports, "Session Management").
"""

import base64
import hashlib
import hmac

_MAC_BYTES = 16


class Sessions:
    """Wraps and unwraps session ids with a key that all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def wrap(self, upstream_id: bytes, server: str, user: str) -> bytes:
        """The id that the caller gets."""
        return upstream_id + b"." + self._mac(upstream_id, server, user)

    def unwrap(self, session: bytes, server: str, user: str) -> bytes | None:
        """The upstream's id, or None if the id was not given to this user for this server."""
        upstream_id, _, mac = session.rpartition(b".")
        return upstream_id if hmac.compare_digest(mac, self._mac(upstream_id, server, user)) else None

    def _mac(self, upstream_id: bytes, server: str, user: str) -> bytes:
        # Lengths first, so that no two triples give the same message.
        parts = [upstream_id, server.encode(), user.encode()]
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        digest = hmac.digest(self._key, message, hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(digest).rstrip(b"=")


def fingerprint(session: bytes) -> str:
    """What a record says of a session: enough to group by, useless to take over."""
    return hashlib.sha256(session).hexdigest()[:16] if session else ""
