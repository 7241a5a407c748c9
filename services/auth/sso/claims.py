"""What the provider's claims about somebody mean here. No I/O."""

from collections.abc import Mapping
from typing import Any

from libs.common.control.entries import Role
from services.auth.domain import normal_email
from services.auth.settings import AuthSettings
from services.auth.sso.domain import Person, Refused
from services.auth.sso.settings import ANY_DOMAIN

Claims = Mapping[str, Any]

_BY_RIGHTS: tuple[Role, ...] = ("admin", "auditor", "member")
_GROUPS = 100  # values of a claim that are looked at


def person_of(claims: Claims, settings: AuthSettings) -> Person:
    """Who has signed in at the provider. Raises `Refused` for somebody whose address does not let them in."""
    return Person(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        email=_entitled_email(claims, settings),
        name=_name(claims),
        role=_role(claims, settings),
        groups=_groups(claims, settings),
    )


def wanted_claims(settings: AuthSettings) -> list[str]:
    """Names of the claims that decide something; a provider may have some of them at its userinfo
    endpoint."""
    paths = [settings.auth_oidc_role_claim, settings.auth_oidc_group_claim]
    return ["email", "email_verified", *filter(None, paths)]


def claim(claims: Claims, path: str) -> Any:
    """The value under a name, which may contain dots, or else under a path of names; None without one."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _entitled_email(claims: Claims, settings: AuthSettings) -> str:
    try:
        email = normal_email(str(claims.get("email") or ""))
    except ValueError as error:
        raise Refused(
            "sso_no_email", "Your organization’s sign-in service did not tell your e-mail address."
        ) from error
    if not _verified(claims, settings):
        raise Refused(
            "sso_unverified_email",
            f"Your organization’s sign-in service has not verified that {email} is your address.",
            email,
        )
    domains = settings.oidc_domains
    if ANY_DOMAIN not in domains and email.rpartition("@")[2].casefold() not in domains:
        raise Refused(
            "sso_foreign_domain", f"People with an address such as {email} cannot sign in here.", email
        )
    return email


def _verified(claims: Claims, settings: AuthSettings) -> bool:
    """Some providers write the boolean as text."""
    said = claims.get("email_verified")
    if said is None:
        return settings.auth_oidc_trust_email
    return said is True or said == "true"


def _name(claims: Claims) -> str:
    name = claims.get("name")
    return "".join(c for c in name if c.isprintable()).strip()[:200] if isinstance(name, str) else ""


def _role(claims: Claims, settings: AuthSettings) -> Role | None:
    if not settings.auth_oidc_role_claim:
        return None
    values = _texts(claim(claims, settings.auth_oidc_role_claim))
    roles = {role for value, role in settings.oidc_roles.items() if value in values}
    return next((role for role in _BY_RIGHTS if role in roles), "member")


def _groups(claims: Claims, settings: AuthSettings) -> tuple[str, ...] | None:
    if not settings.auth_oidc_group_claim:
        return None
    return tuple(_texts(claim(claims, settings.auth_oidc_group_claim))[:_GROUPS])


def _texts(value: Any) -> list[str]:
    """A claim that is a text or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
