"""Which rule of a group fits a resource (pure).

Rules name a resource by its URI, or by the beginning of one with `*` behind it; the longest that fits counts.
What is forwarded is the caller's own spelling of a URI, and servers differ in which spellings they take for
the same: `file:///a`, `FILE:///%61` and `file:///x/../a` may be one file. So a URI that no rule names exactly
as it stands is allowed only if its plain form is allowed too, by the plain forms of the rules; where two of
these are the same, deny wins. An administrator who means two spellings apart names both.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

from libs.common.control.entries import Access, ServerAccess

# What URL parsers drop: tabs and line breaks anywhere, controls and spaces at the ends (WHATWG URL, 4.4).
_DROPPED = re.compile("[\t\n\r]")
_ENDS = "".join(map(chr, range(0x21)))
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(/*)(.*)", re.DOTALL)
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443", "ftp": ":21"}
_THIS_MACHINE = {"localhost", "127.0.0.1"}
_MOST_DECODED = 5  # times; what is encoded more often is nobody's URI


def plain(uri: str) -> str:
    """The loosest reading of `uri`: what any server could take for the same has the same plain form.

    Small letters (also where case matters: it is for comparing only), nothing encoded, no fragment, no dot
    segments, no empty segments, no default port or user, `/` for `\\`. The query stays.
    """
    text = _DROPPED.sub("", uri).strip(_ENDS).partition("#")[0]
    path, mark, query = text.partition("?")
    path = _folded(path).replace("\\", "/")
    if parts := _SCHEME.fullmatch(path):
        path = f"{parts[1]}:{_behind(parts[1], parts[2], parts[3])}"
    else:
        path = _segments(path)
    return path + mark + _folded(query)


def _behind(scheme: str, slashes: str, text: str) -> str:
    """What follows the colon. For the schemes of the web any number of slashes is two (WHATWG URL, 4.4)."""
    if scheme == "file":
        host, _, path = text.partition("/") if slashes == "//" else ("", "", text)
        return f"//{'' if host in _THIS_MACHINE else host}{_segments('/' + path)}"
    if scheme in _DEFAULT_PORTS or slashes == "//":
        authority, slash, path = text.partition("/")
        host = authority.rpartition("@")[2].removesuffix(_DEFAULT_PORTS.get(scheme, ":")).rstrip(".")
        return f"//{host}{_segments(slash + path)}"
    return slashes[:2] + _segments(slashes[2:] + text)


def _folded(text: str) -> str:
    for _ in range(_MOST_DECODED):
        decoded = unquote(text, errors="replace")
        if decoded == text:
            break
        text = decoded
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _segments(path: str) -> str:
    """Without dot segments (RFC 3986, section 5.2.4) and empty ones; a `/` at the end stays."""
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part not in {"", "."}:
            kept.append(part)
    start = "/" if path.startswith("/") else ""
    end = "/" if kept and parts[-1] in {"", ".", ".."} else ""
    return start + "/".join(kept) + end


_plain_rule = lru_cache(8192)(plain)


class _Fit:
    """The rules in one form, so that the longest that fits is found without looking at each."""

    def __init__(self, rules: Iterable[tuple[str, bool, Access]]) -> None:
        self.exact: dict[str, Access] = {}
        self._beginnings: dict[str, Access] = {}
        for text, is_beginning, access in rules:
            known = self._beginnings if is_beginning else self.exact
            known[text] = "deny" if known.get(text) == "deny" else access
        self._lengths = sorted({len(text) for text in self._beginnings}, reverse=True)

    def find(self, uri: str) -> Access | None:
        if uri in self.exact:
            return self.exact[uri]
        fits = (self._beginnings.get(uri[:length]) for length in self._lengths if length <= len(uri))
        return next((access for access in fits if access), None)


class ResourceRules:
    """The rules of one group for one server."""

    def __init__(self, access: ServerAccess) -> None:
        self._default, self._named = access.default, access.resources
        written = [(key.removesuffix("*"), key.endswith("*"), value) for key, value in self._named.items()]
        self._as_written = _Fit(written)
        self._plain = _Fit((_plain_rule(text), begins, value) for text, begins, value in written)
        self._bare = {_bare(text) for text, value in self._plain.exact.items() if value == "deny"}

    def allow(self, uri: str) -> bool:
        """Whether the resource `uri`, which may be a URI template, may be used."""
        if uri in self._named:
            return self._named[uri] == "allow"
        form = plain(uri)
        verdicts = (self._as_written.find(uri) or self._default, self._plain.find(form) or self._default)
        return verdicts == ("allow", "allow") and _bare(form) not in self._bare


def _bare(form: str) -> str:
    """Without its query, which many servers ignore, and without a slash at the end."""
    return form.partition("?")[0].rstrip("/")
