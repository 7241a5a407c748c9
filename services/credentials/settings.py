"""Settings of the credentials service."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import Settings
from libs.common.sql import sqlite_url
from services.credentials.masterkey.local import decode


def _master_key(value: SecretStr | None) -> SecretStr | None:
    """A key in Base64; or where one is in a KMS, which is checked when it is used."""
    text = value.get_secret_value().strip() if value else ""
    if text and not text.startswith(("vault:", "aws:")):
        decode(text)
    return value if text else None  # an empty variable is as good as none


class CredentialsSettings(Settings):
    """What credentials needs to know beside the common settings."""

    credentials_database_url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the vault's database; SQLite in the data directory by default.",
    )
    credentials_master_key: Annotated[SecretStr | None, AfterValidator(_master_key)] = Field(
        None,
        description="The master key of the vault: 32 random bytes in Base64, or where it is in a KMS: "
        "`vault:<mount>/<key>` (HashiCorp Vault, transit) or `aws:<key>` (AWS KMS).",
    )
    credentials_master_key_file: Path | None = Field(
        None, description="A file that holds the master key, instead of giving it directly."
    )
    credentials_more_keys: SecretStr | None = Field(
        None,
        description="Further master keys, separated by commas, while records go over from one to another: "
        "given as the master key itself, or as `file:<path>`.",
    )
    credentials_vault_token_file: Path | None = Field(
        None, description="A file with the token for HashiCorp Vault, as its agent keeps it up to date."
    )
    credentials_create_master_key: bool = Field(
        False,
        description="Keep a master key in the data directory, made at the first start; `lockgate up` does.",
    )

    credentials_private_providers: bool = Field(
        False,
        description="Let authorization servers that an upstream names be on this machine or network, and on "
        "HTTP. What administrators enter may be there in any case.",
    )

    @property
    def database_url(self) -> str:
        """The URL of the database in use."""
        return self.credentials_database_url or sqlite_url(self.data_dir / "credentials.db")
