"""Settings of a gateway replica."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import Settings


def _key(value: SecretStr) -> SecretStr:
    try:
        octets = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None
    if len(octets) < 32:
        raise ValueError("must hold at least 32 random bytes, in base64: `openssl rand -base64 32` makes one")
    return value


class GatewaySettings(Settings):
    """Durations in seconds, sizes in bytes."""

    gateway_session_key: Annotated[SecretStr, AfterValidator(_key)] = Field(
        description="Binds session ids to their caller: 32 random bytes in base64, the same on every replica."
    )
    gateway_body_limit: int = Field(
        4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="Largest request body that is accepted."
    )
    gateway_list_limit: int = Field(
        8 * 1024 * 1024, ge=1024, description="Largest list result, which has to be filtered as a whole."
    )
    gateway_record_limit: int = Field(
        128 * 1024, ge=0, le=384 * 1024, description="Bytes of input, and of output, that a record keeps."
    )
    gateway_allowed_origins: str = Field(
        "", description="Web origins beside the public one whose pages may call, separated by commas."
    )
    gateway_user_concurrency: int = Field(
        128, ge=1, description="Calls and streams that one person may have open at a replica."
    )
    gateway_upstream_connections: int = Field(
        2000, ge=1, description="Connections to one upstream at the most; each open stream holds one."
    )
    on_stale: Literal["refuse", "serve"] = Field(
        "refuse", description="What a replica does that cannot prove that its rules are up to date."
    )

    @property
    def session_key(self) -> bytes:
        return base64.b64decode(self.gateway_session_key.get_secret_value())

    @property
    def origins(self) -> frozenset[str]:
        return frozenset([self.public_url, *filter(None, self.gateway_allowed_origins.split(","))])
