"""A master key in AWS KMS: `aws:alias/lockgate`, or a key id or ARN behind `aws:`.

Region and credentials come from where AWS's own library looks for them (AWS_REGION, a role, ...). The
record's name is the encryption context, so that it stands in CloudTrail too.
"""

from typing import TYPE_CHECKING, Any

from services.credentials.masterkey.port import MasterKeyUnavailable, NotWrappedHere

if TYPE_CHECKING:
    from services.credentials.settings import CredentialsSettings

SCHEME = "aws"
TIMEOUT = 5  # seconds
_NOT_OURS = {"InvalidCiphertextException", "IncorrectKeyException"}


class KmsKey:
    """The symmetric key `key` of AWS KMS."""

    def __init__(self, client: Any, key: str) -> None:
        self.id = f"{SCHEME}:{key}"
        self._client, self._key = client, key

    def wrap(self, data_key: bytes, name: bytes) -> bytes:
        return bytes(self._ask("encrypt", name, Plaintext=data_key)["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        return bytes(self._ask("decrypt", name, CiphertextBlob=wrapped)["Plaintext"])

    def _ask(self, method: str, name: bytes, **values: bytes) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        context = {"lockgate": name.decode()}
        try:
            answer = getattr(self._client, method)(KeyId=self._key, EncryptionContext=context, **values)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if method == "decrypt" and code in _NOT_OURS:
                raise NotWrappedHere from None
            raise self._unavailable(code) from None
        except BotoCoreError as error:
            raise self._unavailable(type(error).__name__) from None
        found: dict[str, Any] = answer
        return found

    def _unavailable(self, why: str) -> MasterKeyUnavailable:
        return MasterKeyUnavailable(f"AWS KMS does not let us use the key {self.id} ({why}).")


def connect(key: str, settings: "CredentialsSettings") -> KmsKey:
    """The key of that id, alias or ARN. Raises `ValueError` that says what is wrong."""
    if not key:
        raise ValueError("must be named as aws:<key>, such as aws:alias/lockgate")
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ValueError("is in AWS KMS, which needs the extra lockgate[kms]") from None
    config = Config(connect_timeout=TIMEOUT, read_timeout=TIMEOUT, retries={"max_attempts": 2})
    try:
        return KmsKey(boto3.client("kms", config=config), key)
    except BotoCoreError as error:
        raise ValueError(f"cannot be reached: {error}") from None
