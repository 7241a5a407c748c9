"""Public names at `/mcp`: `<slug>__<name>` for tools and prompts, `mcp.<slug>+<uri>` for resources.

A slug holds neither `_` nor `+`, so both can be taken apart again. Many clients accept only names that match
`[A-Za-z0-9_-]{1,64}`. What does not fit is cut and gets a hash behind it: `<slug>__<name>__h<hash>`. It takes
a list of names to find out what that stands for.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 64
SLUG_KEPT = 24  # characters of a slug in a name that has to be cut
HASH = 16  # hexadecimal digits; a server must not find a name that hashes like one of another server

_FITS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASHED = re.compile(rf".*__h[0-9a-f]{{{HASH}}}", re.DOTALL)
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_RESOURCE = re.compile(r"mcp\.([a-z0-9][a-z0-9-]*)\+(.*)", re.DOTALL)


class Place(NamedTuple):
    """What a public name stands for."""

    server: str
    name: str


def public_name(server: str, name: str) -> str:
    """The name at `/mcp` of the tool or prompt `name` of `server`."""
    plain = f"{server}__{name}"
    # A name that looks hashed is hashed too, so that no server can make one that means another of its tools.
    if _FITS.fullmatch(plain) and not _HASHED.fullmatch(plain):
        return plain
    # Lengths first: no two places hash the same text.
    digest = hashlib.sha256(f"{len(server)} {server} {name}".encode(errors="surrogatepass")).hexdigest()
    tail = f"__h{digest[:HASH]}"
    head = f"{server[:SLUG_KEPT]}__{_UNFIT.sub('_', name)}"
    return head[: LONGEST - len(tail)] + tail


def is_hashed(public: str) -> bool:
    """Whether `public` has to be looked up."""
    return _HASHED.fullmatch(public) is not None


def place_of(public: str) -> Place | None:
    """What a name that is not hashed stands for; None if it is no public name."""
    server, mark, name = public.partition("__")
    return Place(server, name) if mark and server and name and not is_hashed(public) else None


def candidates(public: str, servers: Iterable[str]) -> list[str]:
    """The servers to one of which a hashed name may belong."""
    kept = public.partition("__")[0]
    return [server for server in servers if server[:SLUG_KEPT] == kept]


def public_uri(server: str, uri: str) -> str:
    """The URI at `/mcp` of a resource, or of a template (RFC 6570), of `server`."""
    return f"mcp.{server}+{uri}"


def resource_of(public: str) -> Place | None:
    """The server and its own URI behind a public one."""
    found = _RESOURCE.fullmatch(public)
    return Place(found[1], found[2]) if found and found[2] else None
