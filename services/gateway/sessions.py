"""Session ids bound to their caller: `<upstream's id>.<MAC>`, valid on every replica, stored nowhere.

With a credential injected the upstream sees one principal, so its own check of who owns a session protects
nothing (MCP 2025-11-25, basic/transports, "Session Management").

A mark before the MAC says what the client said of itself when the session began, which no later request does.
"""

import base64
import hashlib
import hmac

_MAC_BYTES = 16
_MAC_LENGTH = 22  # of that in Base64, without padding
_OPENS_URLS = b"u"


class Sessions:
    """Wraps and unwraps session ids with a key that all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def wrap(self, upstream_id: bytes, server: str, user: str, *, opens_urls: bool = False) -> bytes:
        """The id that the caller gets. `opens_urls`: the client opens pages for its user (elicitation.py)."""
        mark = _OPENS_URLS if opens_urls else b""
        return b"%b.%b%b" % (upstream_id, mark, self._mac(mark, upstream_id, server, user))

    def unwrap(self, session: bytes, server: str, user: str) -> bytes | None:
        """The upstream's id, or None if the id was not given to this user for this server."""
        upstream_id, mark, mac = _parts(session)
        if not hmac.compare_digest(mac, self._mac(mark, upstream_id, server, user)):
            return None
        return upstream_id

    def _mac(self, mark: bytes, upstream_id: bytes, server: str, user: str) -> bytes:
        # Lengths first, so that no two lists of parts give the same message.
        parts = [upstream_id, server.encode(), user.encode(), *([mark] if mark else [])]
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        digest = hmac.digest(self._key, message, hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(digest).rstrip(b"=")


def opens_urls(session: bytes) -> bool:
    """Whether an id says that its client opens pages. Whose the id is only `unwrap` tells."""
    return _parts(session)[1] == _OPENS_URLS


def _parts(session: bytes) -> tuple[bytes, bytes, bytes]:
    """The upstream's id, the mark and the MAC."""
    upstream_id, _, tail = session.rpartition(b".")
    return upstream_id, tail[:-_MAC_LENGTH], tail[-_MAC_LENGTH:]


def fingerprint(session: bytes) -> str:
    """What a record says of a session: enough to group by, useless to take over."""
    return hashlib.sha256(session).hexdigest()[:16] if session else ""
