"""A master key in HashiCorp Vault's transit engine, or OpenBao's: `vault:transit/lockgate`.

Where Vault is and who we are comes from its own variables (VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE,
VAULT_CACERT). The key must be one with associated data: aes256-gcm96 (the usual type) or chacha20-poly1305.
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.credentials.masterkey.port import MasterKeyUnavailable, NotWrappedHere

if TYPE_CHECKING:
    from services.credentials.settings import CredentialsSettings

SCHEME = "vault"
TIMEOUT = 5  # seconds


class TransitKey:
    """The key `name` of the transit engine at `mount`. `token_file` is read anew when Vault does not take the
    token any longer, as its agent writes them."""

    def __init__(self, client: Any, mount: str, name: str, token_file: Path | None = None) -> None:
        self.id = f"{SCHEME}:{mount}/{name}"
        self._client, self._mount, self._name, self._token_file = client, mount, name, token_file

    def wrap(self, data_key: bytes, name: bytes) -> bytes:
        answer = self._ask("encrypt_data", plaintext=_text(data_key), associated_data=_text(name))
        return str(answer["ciphertext"]).encode()

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        from hvac.exceptions import InvalidRequest

        try:
            ciphertext = wrapped.decode("ascii")
            answer = self._ask("decrypt_data", ciphertext=ciphertext, associated_data=_text(name))
            return base64.b64decode(answer["plaintext"], validate=True)
        except (InvalidRequest, ValueError):
            raise NotWrappedHere from None

    def _ask(self, method: str, **values: str) -> dict[str, Any]:
        """Raises `InvalidRequest` of hvac when Vault refuses to decrypt, and `MasterKeyUnavailable`."""
        from hvac.exceptions import Forbidden, InvalidRequest, VaultError
        from requests.exceptions import RequestException

        call = getattr(self._client.secrets.transit, method)
        try:
            try:
                answer = call(name=self._name, mount_point=self._mount, **values)
            except Forbidden:
                if not self._read_token():
                    raise
                answer = call(name=self._name, mount_point=self._mount, **values)
            found: dict[str, Any] = answer["data"]
            return found
        except InvalidRequest as error:
            if method == "decrypt_data":
                raise
            raise self._unavailable(error) from None
        except (VaultError, RequestException, KeyError, TypeError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> MasterKeyUnavailable:
        # Only the kind of the error: what Vault says may repeat what it was asked.
        return MasterKeyUnavailable(f"Vault does not let us use the key {self.id} ({type(error).__name__}).")

    def _read_token(self) -> bool:
        """Whether there is another token now."""
        if self._token_file is None:
            return False
        try:
            token = self._token_file.read_text().strip()
        except OSError:
            return False
        changed = bool(token) and token != self._client.token
        if changed:
            self._client.token = token
        return changed


def connect(place: str, settings: "CredentialsSettings") -> TransitKey:
    """The key at `place`, `<mount>/<name>`. Raises `ValueError` that says what is wrong."""
    mount, _, name = place.rpartition("/")
    if not mount or not name:
        raise ValueError("must be named as vault:<mount>/<key>, such as vault:transit/lockgate")
    try:
        import hvac
    except ImportError:
        raise ValueError("is in Vault, which needs the extra lockgate[vault]") from None
    token_file = settings.credentials_vault_token_file
    client = hvac.Client(timeout=TIMEOUT, namespace=os.environ.get("VAULT_NAMESPACE"))
    key = TransitKey(client, mount, name, token_file)
    key._read_token()
    return key


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
