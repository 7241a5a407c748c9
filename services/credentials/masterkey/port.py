"""The port behind which a master key lives: in this process, or in a KMS."""

from typing import Protocol

from libs.common.errors import Unavailable


class NotWrappedHere(Exception):
    """It was not wrapped by this master key, not under that name, or was changed since."""


class MasterKeyUnavailable(Unavailable):
    """The KMS does not answer, or does not let us use the key."""

    type, title = "master-key-unavailable", "The master key cannot be used now"


class MasterKey(Protocol):
    """Wraps data keys of 32 bytes. Both methods block."""

    id: str  # tells it from all others, and is no secret

    def wrap(self, data_key: bytes, name: bytes) -> bytes:
        """`data_key` for the record `name` only. Raises `MasterKeyUnavailable`."""
        ...

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        """Raises `NotWrappedHere`, `MasterKeyUnavailable`."""
        ...
