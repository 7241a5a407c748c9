"""Errors of the protocol that Authlib does not bring along."""

from authlib.oauth2.rfc6749 import OAuth2Error


class InvalidTargetError(OAuth2Error):  # type: ignore[misc]
    """RFC 8707, section 2: the resource is unknown, malformed, or not what was granted."""

    error = "invalid_target"


class InvalidRedirectUri(OAuth2Error):  # type: ignore[misc]
    """RFC 7591, section 3.2.2."""

    error = "invalid_redirect_uri"


class InvalidClientMetadata(OAuth2Error):  # type: ignore[misc]
    """RFC 7591, section 3.2.2."""

    error = "invalid_client_metadata"


class SlowDown(OAuth2Error):  # type: ignore[misc]
    """Too many registrations from one address."""

    error = "temporarily_unavailable"
    status_code = 429


def printable(text: object) -> str:
    """`text` with only the characters that an error description may have (RFC 6749, section 5.2)."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in str(text))
