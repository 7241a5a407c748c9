"""Settings of the auth service."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from libs.common.sql import sqlite_url
from services.auth.domain import ACCESS_LIFETIME, check_password, email_key, normal_email
from services.auth.sso.settings import SignInSettings

DAY = 24 * 3600


class AuthSettings(SignInSettings):
    """Durations are in seconds."""

    auth_database_url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="Database of users and grants; SQLite in the data directory unless given.",
    )
    auth_admin_email: str = Field(
        "admin@example.com", description="E-mail of the administrator that the first start creates."
    )
    auth_admin_password: SecretStr | None = Field(
        None, description="Password of that administrator; generated and printed once unless given."
    )
    auth_session_lifetime: int = Field(
        14 * DAY, ge=900, description="How long a login lasts before the password is asked for again."
    )
    auth_access_lifetime: int = Field(
        ACCESS_LIFETIME,
        ge=5,
        le=ACCESS_LIFETIME,
        description="How long an access token lasts before its client has to refresh it.",
    )
    auth_registrations_per_hour: int = Field(
        100, ge=1, description="Clients that one address may register per hour (RFC 7591)."
    )

    auth_key_lifetime: int = Field(
        90 * DAY, ge=DAY, description="How long a key signs tokens before the next one takes over."
    )

    auth_client_documents: Literal["on", "off"] = Field(
        "on",
        description="Whether clients may identify themselves by a document at a URL, which is fetched. Where "
        "nothing outside can be reached, `off` makes them register instead.",
    )
    auth_private_client_documents: bool = Field(
        False,
        description="Whether client metadata documents may lie on this machine or in a private network.",
    )

    @field_validator("auth_admin_email")
    @classmethod
    def _email(cls, value: str) -> str:
        return normal_email(value)

    @field_validator("auth_admin_password")
    @classmethod
    def _password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_password(value.get_secret_value())
        return value

    def admits_password_of(self, email: str) -> bool:
        """Whether the account with this address may sign in without the organization's provider."""
        match self.auth_password_login:
            case "on":
                return True
            case "administrator":
                return email_key(email) == email_key(self.auth_admin_email)
            case "off":
                return False

    @property
    def database_url(self) -> str:
        return self.auth_database_url or sqlite_url(self.data_dir / "auth.db")
