"""Settings of the credentials service."""

import base64
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import Settings
from libs.common.sql import sqlite_url

KEY_SIZE = 32  # bytes of the master key


def _master_key(value: SecretStr | None) -> SecretStr | None:
    if not value:  # an empty variable is as good as none
        return value
    try:
        octets = base64.b64decode(value.get_secret_value().strip(), validate=True)
    except ValueError:
        raise ValueError("must be Base64 (openssl rand -base64 32 makes a key)") from None
    if len(octets) != KEY_SIZE:
        raise ValueError(
            f"has {len(octets)} bytes; it must have {KEY_SIZE} (openssl rand -base64 32 makes a key)"
        )
    return value


class CredentialsSettings(Settings):
    """What credentials needs to know beside the common settings."""

    credentials_database_url: str | None = Field(
        None, description="SQLAlchemy URL of the vault's database; SQLite in the data directory by default."
    )
    credentials_master_key: Annotated[SecretStr | None, AfterValidator(_master_key)] = Field(
        None, description="The master key of the vault: 32 random bytes in Base64."
    )
    credentials_master_key_file: Path | None = Field(
        None, description="A file that holds the master key, instead of giving it directly."
    )
    credentials_create_master_key: bool = Field(
        False, description="Keep a master key in the data directory, made at the first start."
    )

    @property
    def database_url(self) -> str:
        """The URL of the database in use."""
        return self.credentials_database_url or sqlite_url(self.data_dir / "credentials.db")
