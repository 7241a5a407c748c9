"""Settings shared by every service. One prefix, `LOCKGATE_`; a service's own fields carry its name."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LOCKGATE_"

_SECRET_NAME = re.compile("key|password|secret|token")


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an origin such as https://mcp.example.com")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an origin only: no path, query or user")
    return f"{parts.scheme}://{parts.netloc}"


def _without_user(value: str) -> str:
    """The addresses of servers are told in errors, so nothing secret may be in them."""
    if "@" in value:
        raise ValueError("must not hold a user or password: they have variables of their own")
    return value


def _networks(value: str) -> str:
    names = [name for part in value.split(",") if (name := part.strip())]
    for name in names:
        try:
            ip_network(name)
        except ValueError as error:
            raise ValueError(f"must be addresses or networks such as 10.0.0.0/8; {error}") from None
    return ",".join(names)


class Settings(BaseSettings):
    """What every service needs to know. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    public_url: Annotated[str, AfterValidator(_origin)] = Field(
        "http://127.0.0.1:8080", description="The one origin under which people and clients reach Lockgate."
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Addresses or networks of the proxies in front, separated by commas: their "
        "`X-Forwarded-For` says who calls, for limits and records.",
    )
    data_dir: Path = Field(
        Path("data"), description="Directory for databases, journals and keys; one per process."
    )
    nats_url: Annotated[str, AfterValidator(_without_user)] = Field(
        "nats://127.0.0.1:4222", description="NATS servers, separated by commas."
    )
    nats_user: str | None = Field(None, description="User of this service at NATS.")
    nats_password: SecretStr | None = Field(None, description="Password of this service at NATS.")
    nats_replicas: int = Field(
        1, ge=1, le=5, description="Copies that NATS keeps of each stream (3 on a cluster)."
    )
    activity_stream_bytes: int = Field(
        1024**3, ge=1024**2, description="Size at which the stream between journals and ClickHouse is full."
    )
    lease: float = Field(
        5.0, ge=1, le=60, description="How long a replica may decide on a proof of freshness."
    )
    log_format: Literal["console", "json"] = Field(
        "json", description="How logs are written to standard error; `lockgate up` writes for the console."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged; `lockgate up` begins at warnings."
    )

    @property
    def secure_cookies(self) -> bool:
        """Whether the public origin is HTTPS, so that cookies can be bound to it."""
        return self.public_url.startswith("https://")


class BadSettings(Exception):
    """Every bad setting of a service at once, one line each, as `LOCKGATE_NAME: what is wrong`."""


S = TypeVar("S", bound=Settings)


def load(cls: type[S], **overrides: object) -> S:
    """Read `cls` from the environment; `overrides` win. Raises `BadSettings` naming each wrong variable."""
    try:
        return cls(**overrides)  # type: ignore[arg-type]  # checked by pydantic itself
    except ValidationError as error:
        raise BadSettings("\n".join(_in_words(cls, wrong) for wrong in error.errors())) from None


def _in_words(cls: type[Settings], wrong: ErrorDetails) -> str:
    """One of pydantic's errors as `LOCKGATE_NAME: 'value' - what is wrong`; a secret's value stays out."""
    name = "_".join(map(str, wrong["loc"]))
    reason = wrong["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    reason = reason[:1].lower() + reason[1:]
    shown = f"{wrong['input']!r} - " if _may_be_shown(cls, name, wrong["input"]) else ""
    return f"{PREFIX}{name.upper()}: {shown}{reason}"


def _may_be_shown(cls: type[Settings], name: str, value: object) -> bool:
    """Whether a wrong value helps and tells no secret. A URL may hold one before the `@` or in the query."""
    field = cls.model_fields.get(name)
    if field is None or not isinstance(value, str | int | float) or _SECRET_NAME.search(name):
        return False
    if SecretStr in (field.annotation, *get_args(field.annotation)):
        return False
    is_url = "url" in name or "://" in str(value)
    return not (is_url and set("@?") & set(str(value)))


def unknown_variables(*classes: type[Settings]) -> list[str]:
    """`LOCKGATE_*` variables of the environment that no given settings class reads: likely typing errors."""
    known = {f"{PREFIX}{name}".upper() for cls in classes for name in cls.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known)
