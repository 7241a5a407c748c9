"""Where the vault's master key comes from: a setting, a file, or one made at the first start if allowed."""

import base64
import os
import secrets
from pathlib import Path

from libs.common.settings import PREFIX, BadSettings
from services.credentials.settings import KEY_SIZE, CredentialsSettings

FILE_NAME = "master.key"

_DIRECT = f"{PREFIX}CREDENTIALS_MASTER_KEY"
_FILE = f"{PREFIX}CREDENTIALS_MASTER_KEY_FILE"


def load(settings: CredentialsSettings, *, vault_exists: bool) -> bytes:
    """The master key's 32 bytes. Raises `BadSettings` that says what is wrong, and never shows the key.

    `vault_exists` says that something was sealed before: then a lost key is not replaced by a new one.
    """
    direct, file = settings.credentials_master_key, settings.credentials_master_key_file
    if direct and file:
        raise BadSettings(f"{_DIRECT}: set either this or {_FILE}, not both")
    if direct:
        return _decode(direct.get_secret_value(), _DIRECT)
    if file:
        return _read(file, _FILE)
    kept = settings.data_dir / FILE_NAME
    if not settings.credentials_create_master_key:
        raise BadSettings(
            f"{_DIRECT}: missing. The vault needs a master key: 32 random bytes in Base64 "
            f"(openssl rand -base64 32), here or in the file that {_FILE} names"
        )
    if not kept.exists():
        if vault_exists:
            raise BadSettings(
                f"{_FILE}: {kept} is missing, and the vault was sealed with the key in it. Restore that "
                "file from a backup, or name the key by a setting"
            )
        _create(kept)
    return _read(kept, str(kept))


def _read(path: Path, name: str) -> bytes:
    try:
        return _decode(path.read_text(encoding="ascii"), name)
    except OSError as error:
        raise BadSettings(f"{name}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{name}: {path} does not hold Base64") from None


def _decode(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise BadSettings(f"{name}: the master key is not Base64") from None
    if len(key) != KEY_SIZE:
        raise BadSettings(f"{name}: the master key has {len(key)} bytes; it must have {KEY_SIZE}")
    return key


def _create(path: Path) -> None:
    """Write a new key that only this user can read, and have it on disk before anything is sealed with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_SIZE)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
