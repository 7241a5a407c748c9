"""Settings of the credentials service."""

from pathlib import Path

from pydantic import Field, SecretStr

from libs.common.settings import Settings
from libs.common.sql import sqlite_url


class CredentialsSettings(Settings):
    """What credentials needs to know beside the common settings."""

    credentials_database_url: str | None = Field(
        None, description="SQLAlchemy URL of the vault's database; SQLite in the data directory by default."
    )
    credentials_master_key: SecretStr | None = Field(
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
