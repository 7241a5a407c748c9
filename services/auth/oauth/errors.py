"""Errors of the protocol that Authlib does not bring along."""

from authlib.oauth2.rfc6749 import OAuth2Error


class InvalidTargetError(OAuth2Error):  # type: ignore[misc]
    """RFC 8707, section 2: the resource is unknown, malformed, or not what was granted."""

    error = "invalid_target"
    reason = "wrong_resource"


class InvalidRedirectUri(OAuth2Error):  # type: ignore[misc]
    """RFC 7591, section 3.2.2."""

    error = "invalid_redirect_uri"


class InvalidClientMetadata(OAuth2Error):  # type: ignore[misc]
    """RFC 7591, section 3.2.2."""

    error = "invalid_client_metadata"


class LoginRequired(OAuth2Error):  # type: ignore[misc]
    """OpenID Connect Core 1.0, section 3.1.2.6: nobody is signed in, and nobody may be asked to."""

    error = "login_required"


class ConsentRequired(OAuth2Error):  # type: ignore[misc]
    """OpenID Connect Core 1.0, section 3.1.2.6: nobody may be asked for consent, and it is needed."""

    error = "consent_required"


class SlowDown(OAuth2Error):  # type: ignore[misc]
    """Too many registrations from one address."""

    error = "temporarily_unavailable"
    status_code = 429


def because(reason: str, error: OAuth2Error) -> OAuth2Error:
    """`error`, with the reason that the record gives for it; the client is told no more than before. Errors
    without a reason of their own are everyday ones, and not recorded."""
    error.reason = reason
    return error


def reason_of(error: OAuth2Error) -> str:
    """Why the record says that a request was refused; empty when it says nothing."""
    return getattr(error, "reason", "")


def printable(text: object) -> str:
    """`text` with only the characters that an error description may have (RFC 6749, section 5.2)."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in str(text))
