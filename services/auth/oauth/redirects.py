"""Redirect URIs: exact match, except that a loopback one may use any port (RFC 8252, section 7.3).

Schemes are compared in lower case, as browsers do (RFC 3986, section 3.1), however a URI writes them.
"""

import re
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

_LOOPBACK = re.compile(r"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost)(?::\d{1,5})?(?P<rest>[/?].*)?")
_HTTP = {"http", "https"}
_URI = re.compile(r"[!-~]+")  # printable ASCII
# Schemes that a browser runs or reads itself rather than handing them to an application.
_REFUSED = {
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
    "wss",
}
_MAX_LENGTH = 2000

# Where a redirect leads: to this computer, to a web site, or to whatever handles a scheme of its own.
Destination: TypeAlias = Literal["loopback", "site", "handler"]


def problem(uri: str) -> str | None:
    """Why `uri` cannot be registered; None if it can."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return "it is not a URI"
    http = parts.scheme in _HTTP
    checks = {
        "it is not a URI": len(uri) > _MAX_LENGTH or not _URI.fullmatch(uri) or "\\" in uri,
        "its scheme is not allowed": not parts.scheme or parts.scheme in _REFUSED,
        "its scheme is not in lower case": not uri.startswith(f"{parts.scheme}:"),
        "it has a fragment": "#" in uri,
        "it names a user": "@" in parts.netloc,
        "it has no host": http and not parts.hostname,
        "http is for this computer only (127.0.0.1, [::1], localhost); use https": parts.scheme == "http"
        and not _LOOPBACK.fullmatch(uri),
    }
    return next((reason for reason, wrong in checks.items() if wrong), None)


def matches(registered: str, requested: str) -> bool:
    """Whether a request may ask to be redirected to `requested`."""
    if requested == registered:
        return True
    ours, theirs = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(requested)
    if not ours or not theirs or problem(requested):
        return False
    return ours.group("host", "rest") == theirs.group("host", "rest")


def host_of(uri: str) -> str:
    """What people are shown: the host; for an application's own scheme that scheme alone, since what stands
    where a host would stand there is no more than the application's word."""
    parts = urlsplit(uri)
    return (parts.hostname or "") if parts.scheme in _HTTP else f"{parts.scheme}:"


def destination(uri: str) -> Destination:
    if _LOOPBACK.fullmatch(uri):
        return "loopback"
    return "site" if urlsplit(uri).scheme in _HTTP else "handler"


def form_action(uri: str) -> str:
    """`uri` as a source of the content-security policy, whose `form-action` browsers apply to redirects."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in _HTTP else f"{parts.scheme}:"
