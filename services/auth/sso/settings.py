"""Settings of single sign-on, and of what else it takes to sign in."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from libs.common.control.entries import Role
from libs.common.settings import Settings

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
ANY_DOMAIN = "*"

PasswordLogin = Literal["on", "administrator", "off"]
Required = Literal["off", "admins", "all"]
# Checked also when it is not given: whether it may be missing depends on the others.
Dependent = Annotated[str, Field(validate_default=True)]


class SignInSettings(Settings):
    """How people prove who they are."""

    auth_oidc_issuer: str = Field(
        "", description="Issuer URL of the organization's OpenID provider; empty without single sign-on."
    )
    auth_oidc_client_id: Dependent = Field(
        "",
        description="Lockgate's client id there, with the redirect URI `PUBLIC_URL/login/sso/callback`.",
    )
    auth_oidc_client_secret: SecretStr | None = Field(
        None, description="Lockgate's client secret there; a public client has none."
    )
    auth_oidc_scopes: str = Field(
        "openid email profile", description="Scopes to ask the provider for, separated by spaces."
    )
    auth_oidc_allowed_domains: Dependent = Field(
        "",
        description="Domains of e-mail addresses that may sign in by the provider, separated by commas; `*` "
        "for all that the provider has, which is only right for a provider of your organization alone.",
    )
    auth_oidc_trust_email: bool = Field(
        False,
        description="Whether an address counts as verified when the provider does not say that it is. Only "
        "for providers whose people cannot choose their address.",
    )
    auth_oidc_join: Literal["member", "off"] = Field(
        "off",
        description="Whether somebody whom Lockgate does not know becomes a member at their first sign-in by "
        "the provider; otherwise an administrator invites them first.",
    )
    auth_oidc_role_claim: str = Field(
        "",
        description="Claim that decides the role at each sign-in: its name, or a path such as "
        "`realm_access.roles`. Without one, administrators decide it in Lockgate.",
    )
    auth_oidc_roles: Dependent = Field(
        "",
        description="Values of that claim and their roles, as `value=role`, separated by commas. Of several "
        "roles the one with most rights counts; who has none of the values is a member.",
    )
    auth_oidc_group_claim: str = Field(
        "",
        description="Claim that decides the permission group at each sign-in; the first of its values that "
        "names a group counts, and without one it is the default group.",
    )
    auth_password_login: Annotated[PasswordLogin, Field(validate_default=True)] = Field(
        "on",
        description="Whether people may sign in by password and passkey beside the provider. `administrator` "
        "lets in `LOCKGATE_AUTH_ADMIN_EMAIL` alone: the way in when the provider is out of order.",
    )
    auth_require_second_factor: Required = Field(
        "off",
        description="Who needs a second factor to sign in by password; who has none yet sets it up then. The "
        "organization's provider sees to its own.",
    )

    @field_validator("auth_oidc_issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not secure or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(
                "must be an https URL without query or fragment, as the provider's metadata has it"
            )
        return value

    @field_validator("auth_oidc_client_id")
    @classmethod
    def _client_id(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("auth_oidc_issuer") and not value:
            raise ValueError("is needed with LOCKGATE_AUTH_OIDC_ISSUER")
        return value

    @field_validator("auth_oidc_scopes")
    @classmethod
    def _scopes(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("must contain openid")
        return value

    @field_validator("auth_oidc_allowed_domains")
    @classmethod
    def _domains(cls, value: str, info: ValidationInfo) -> str:
        domains = [name for part in value.split(",") if (name := part.strip().casefold().removeprefix("@"))]
        if info.data.get("auth_oidc_issuer") and not domains:
            raise ValueError("is needed with LOCKGATE_AUTH_OIDC_ISSUER: your e-mail domains, or *")
        return ",".join(domains)

    @field_validator("auth_oidc_roles")
    @classmethod
    def _roles(cls, value: str, info: ValidationInfo) -> str:
        roles = parse_roles(value)
        if bool(roles) != bool(info.data.get("auth_oidc_role_claim")):
            raise ValueError("and LOCKGATE_AUTH_OIDC_ROLE_CLAIM need each other")
        return value

    @field_validator("auth_password_login")
    @classmethod
    def _password_login(cls, value: PasswordLogin, info: ValidationInfo) -> PasswordLogin:
        if value != "on" and not info.data.get("auth_oidc_issuer"):
            raise ValueError("needs LOCKGATE_AUTH_OIDC_ISSUER, without which nobody could sign in")
        return value

    @property
    def admits_passwords(self) -> bool:
        """Whether anybody may sign in by password or passkey."""
        return self.auth_password_login in {"on", "administrator"}

    @property
    def oidc_domains(self) -> frozenset[str]:
        return frozenset(filter(None, self.auth_oidc_allowed_domains.split(",")))

    @property
    def oidc_roles(self) -> dict[str, Role]:
        return parse_roles(self.auth_oidc_roles)


def parse_roles(text: str) -> dict[str, Role]:
    """`value=role, …` as a table. A value may contain `=`. Raises `ValueError`."""
    roles: dict[str, Role] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        value, _, role = part.rpartition("=")
        match role.strip():
            case "admin" | "auditor" | "member" as known if value.strip():
                roles[value.strip()] = known
            case _:
                raise ValueError("must be such as lockgate-admins=admin,revision=auditor")
    return roles
