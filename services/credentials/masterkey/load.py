"""The master keys that the settings name: given directly, in files, in a KMS, or made at the first start."""

import base64
import os
import secrets
from pathlib import Path

from libs.common.settings import PREFIX, BadSettings
from services.credentials.masterkey import aws, transit
from services.credentials.masterkey.local import KEY_SIZE, LocalKey, decode
from services.credentials.masterkey.port import MasterKey
from services.credentials.settings import CredentialsSettings

FILE_NAME = "master.key"

_DIRECT = f"{PREFIX}CREDENTIALS_MASTER_KEY"
_FILE = f"{PREFIX}CREDENTIALS_MASTER_KEY_FILE"
_MORE = f"{PREFIX}CREDENTIALS_MORE_KEYS"


def load(settings: CredentialsSettings, *, vault_exists: bool) -> list[MasterKey]:
    """Every master key, the one for a new vault first. Raises `BadSettings` that says what is wrong, and
    never shows a key.

    `vault_exists` says that something was sealed before: then a lost key is not replaced by a new one.
    """
    keys = [*_main(settings, vault_exists), *_more(settings)]
    return list({key.id: key for key in keys}.values())


def _main(settings: CredentialsSettings, vault_exists: bool) -> list[MasterKey]:
    direct, file = settings.credentials_master_key, settings.credentials_master_key_file
    if direct and file:
        raise BadSettings(f"{_DIRECT}: set either this or {_FILE}, not both")
    if direct:
        return [reference(direct.get_secret_value(), _DIRECT, settings)]
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


def _more(settings: CredentialsSettings) -> list[MasterKey]:
    more = settings.credentials_more_keys
    parts = more.get_secret_value().split(",") if more else []
    keys: list[MasterKey] = []
    for part in filter(None, map(str.strip, parts)):
        if part.startswith("file:"):
            keys += _read(Path(part.removeprefix("file:")), _MORE)
        else:
            keys.append(reference(part, _MORE, settings))
    return keys


def reference(text: str, name: str, settings: CredentialsSettings) -> MasterKey:
    """The key that `text` is or names. Raises `BadSettings` about the variable `name`."""
    scheme, colon, rest = text.strip().partition(":")
    try:
        if scheme == transit.SCHEME and colon:
            return transit.connect(rest, settings)
        if scheme == aws.SCHEME and colon:
            return aws.connect(rest, settings)
        return LocalKey(decode(text))
    except ValueError as error:
        raise BadSettings(f"{name}: the master key {error}") from None


def _read(path: Path, name: str) -> list[MasterKey]:
    """The keys in a file, one a line."""
    try:
        lines = path.read_text(encoding="ascii").split()
        return [LocalKey(decode(line)) for line in lines or [""]]
    except OSError as error:
        raise BadSettings(f"{name}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{name}: {path} does not hold Base64") from None
    except ValueError as error:
        raise BadSettings(f"{name}: the master key in {path} {error}") from None


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
