"""`server/discover` and `initialize`, each made of the other, and the capabilities that they tell (pure)."""

import msgspec

from services.gateway.eras.translation import (
    inner,
    modern_result,
    raw,
    with_meta,
    without,
)
from services.gateway.messages import joined, members
from services.gateway.protocol import LEGACY, META_SERVER, MODERN, PREFIX

TASKS = PREFIX + "tasks"  # the extension of 2026-07-28


def negotiated(requested: str) -> str:
    """The revision that a session speaks (2025-11-25, basic/lifecycle "Version Negotiation")."""
    return requested if requested in LEGACY else LEGACY[-1]


def initialize_result(discovered: bytes, version: str, name: str) -> bytes:
    """The result of `server/discover` as that of `initialize`.

    A server need not say who it is now, but had to before: then it is `name`.
    """
    parts = without(members(discovered), "resultType", "ttlMs", "cacheScope", "supportedVersions")
    meta = inner(parts, "_meta")
    info = meta.get(META_SERVER, raw({"name": name, "version": ""}))
    parts |= {
        "protocolVersion": raw(version),
        "capabilities": msgspec.Raw(without_tasks(parts.get("capabilities", b""))),
        "serverInfo": info,
    }
    return joined(with_meta(parts, without(meta, META_SERVER)))


def discover_result(initialized: bytes) -> bytes:
    """The result of `initialize` as that of `server/discover`: spoken to in the modern revision."""
    parts = without(members(initialized), "protocolVersion", "serverInfo")
    parts |= {
        "supportedVersions": raw([MODERN]),
        "capabilities": msgspec.Raw(without_tasks(parts.get("capabilities", b""))),
    }
    server_info = bytes(members(initialized).get("serverInfo", b""))
    return modern_result("server/discover", joined(parts), server_info)


def without_tasks(capabilities: bytes) -> bytes:
    """Capabilities of either side without tasks, in the form of either era."""
    parts = without(members(capabilities), "tasks")
    extensions = inner(parts, "extensions")
    if TASKS in extensions:
        parts["extensions"] = msgspec.Raw(joined(without(extensions, TASKS)))
    return joined(parts)


def has_capability(capabilities: bytes, *path: str) -> bool:
    """Whether a capability is there and not `false`: `has_capability(c, "resources", "subscribe")`."""
    for name in path:
        capabilities = bytes(members(capabilities).get(name, b"false"))
        if capabilities in {b"false", b"null"}:
            return False
    return True
