"""Settings of a gateway replica."""

import base64
import binascii
import ssl
from pathlib import Path
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


def _authorities(value: Path | None) -> Path | None:
    try:
        if value:
            ssl.create_default_context(cafile=value)
    except OSError as error:
        raise ValueError(f"must be a file of certificates in PEM: {error.strerror}") from None
    return value


class GatewaySettings(Settings):
    """Durations in seconds, sizes in bytes."""

    gateway_session_key: Annotated[SecretStr, AfterValidator(_key)] = Field(
        description="Binds session ids to their caller: 32 random bytes in base64, the same for all; "
        "`openssl rand -base64 32` makes one; `lockgate up` keeps its own."
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
        128, ge=1, description="Calls that one person may have running at a replica."
    )
    gateway_user_streams: int = Field(
        128, ge=1, description="Streams for notifications that one person may have open at a replica."
    )
    gateway_user_sessions: int = Field(
        64, ge=1, description="Sessions that one person may have open at a replica in the bridged lane."
    )
    gateway_session_idle: float = Field(
        1800.0, gt=0, description="Seconds after which such a session ends if nobody uses it."
    )
    gateway_aggregate_deadline: float = Field(
        5.0, gt=0, description="Seconds that a server has for its part of a list at /mcp."
    )
    gateway_backlog_limit: int = Field(
        8 * 1024 * 1024, ge=1024, description="Bytes that may wait for a client that reads slowly."
    )
    gateway_header_limit: int = Field(
        32 * 1024, ge=4096, le=64 * 1024, description="Size of the headers of a request, all together."
    )
    gateway_upstream_connections: int = Field(
        2000, ge=1, description="Connections to one upstream at the most; each open stream holds one."
    )
    gateway_ca_file: Annotated[Path | None, AfterValidator(_authorities)] = Field(
        None, description="Certificate authorities of upstreams, in PEM, beside those of the system."
    )
    gateway_stdio: Literal["off", "on"] = Field(
        "off",
        description="Whether it runs the commands of stdio servers, as its own user; `lockgate up` does.",
    )
    gateway_stdio_processes: int = Field(
        50, ge=1, description="Processes of stdio servers that may run at a replica."
    )
    gateway_stdio_user_processes: int = Field(
        10, ge=1, description="Those of them that may run for one person alone."
    )
    gateway_stdio_message_limit: int = Field(
        16 * 1024 * 1024,
        ge=64 * 1024,
        le=256 * 1024 * 1024,
        description="Longest message that a stdio server may write.",
    )
    gateway_stdio_start_timeout: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="Seconds that a stdio server may take to start, fetching its package included.",
    )
    gateway_stdio_open_files: int = Field(1024, ge=0, description="Files that its process may have open.")
    gateway_stdio_address_space: int = Field(
        0, ge=0, description="Address space of its process, 0 for any; Node reserves many gigabytes."
    )
    gateway_stdio_tasks: int = Field(
        0, ge=0, description="Processes and threads that its operating system's user may have, 0 for any."
    )
    on_stale: Literal["refuse", "serve"] = Field(
        "refuse", description="What a replica does with calls while it cannot prove that it is up to date."
    )

    @property
    def session_key(self) -> bytes:
        return base64.b64decode(self.gateway_session_key.get_secret_value())

    @property
    def origins(self) -> frozenset[str]:
        return frozenset([self.public_url, *filter(None, self.gateway_allowed_origins.split(","))])
