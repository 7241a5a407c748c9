"""Which headers cross the gateway. What is not listed here passes unchanged, in both directions."""

from collections.abc import Collection, Iterable

from services.gateway.connection import Header

COUNT_LIMIT = 100  # headers of a request

# RFC 9110, section 7.6.1, and what older proxies treat likewise.
_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
# Ours to set, or meant for Lockgate only: the caller's token and cookies never reach an upstream.
_NOT_UPSTREAM = _HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"mcp-session-id",
    b"origin",
    b"referer",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-real-ip",
    b"x-rewrite-url",
}
# An upstream must not set cookies on our origin, challenge our clients, or speak for our transport.
_NOT_DOWNSTREAM = _HOP_BY_HOP | {
    b"alt-svc",
    b"clear-site-data",
    b"content-length",
    b"date",
    b"mcp-session-id",
    b"server",
    b"set-cookie",
    b"strict-transport-security",
    b"www-authenticate",
}
# The body is ours to describe: with another charset or coding the upstream would read another body.
_NOT_UPSTREAM_PREFIXES = (b"content-", b"x-forwarded-", b"sec-", b"access-control-")
_NOT_DOWNSTREAM_PREFIXES = (b"access-control-",)


def are_too_large(given: Collection[Header], limit: int) -> bool:
    """Whether the headers are more than `COUNT_LIMIT`, or longer than `limit` bytes in HTTP/1.1."""
    return len(given) > COUNT_LIMIT or sum(len(name) + len(value) + 4 for name, value in given) > limit


def upstream(
    given: Iterable[Header], credential: list[Header], session: bytes, *, has_body: bool
) -> list[Header]:
    """Headers for the upstream: the caller's, without what is not for it, with credential and session."""
    injected = {name for name, _ in credential}
    dropped = _named_by_connection(given) | injected
    passed = [
        (name, value.strip()) for name, value in given if name not in dropped and _may_pass_upstream(name)
    ]
    # Bodies are read on the way, so they must come as they are.
    passed += [(b"accept-encoding", b"identity"), *credential]
    if has_body:
        passed.append((b"content-type", b"application/json"))
    if session:
        passed.append((b"mcp-session-id", session))
    return passed


def is_plain_json(given: Iterable[Header]) -> bool:
    """Whether the headers describe the body as what we read it as: JSON in UTF-8, not encoded further."""
    types = [value for name, value in given if name == b"content-type"]
    encodings = [value for name, value in given if name == b"content-encoding"]
    return all(map(_is_utf8_json, types)) and all(value.strip() == b"identity" for value in encodings)


def _is_utf8_json(content_type: bytes) -> bool:
    media, _, parameters = content_type.lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'" ')
    return media.strip() == b"application/json" and charset in {b"", b"utf-8", b"utf8"}


def _may_pass_upstream(name: bytes) -> bool:
    if name.startswith(b"mcp-param-"):  # a parameter's name may hold an underscore
        return True
    # CGI and WSGI read `X_Api_Key` and `X-Api-Key` as the same header.
    return name not in _NOT_UPSTREAM and not name.startswith(_NOT_UPSTREAM_PREFIXES) and b"_" not in name


def downstream(given: Iterable[Header]) -> list[Header]:
    """Headers for the caller."""
    dropped = _named_by_connection(given)
    return [
        (name, value)
        for name, value in given
        if name not in _NOT_DOWNSTREAM
        and name not in dropped
        and not name.startswith(_NOT_DOWNSTREAM_PREFIXES)
    ]


def _named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    """Headers that `Connection` declares to be of this hop only."""
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}
