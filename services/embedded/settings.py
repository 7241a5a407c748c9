"""The settings of all five services from one place, so that embedded mode needs no configuration.

What embedded mode is about (the directory, the address, its own NATS) is fixed here; what it merely needs
a value for is a default, which a `LOCKGATE_*` variable replaces; everything else is read as by any service.
"""

import base64
import os
import secrets
import shlex
from dataclasses import dataclass

from libs.common.settings import PREFIX, BadSettings, Settings, load
from services.embedded.catalog import NAMES, Name, settings_class
from services.embedded.datadir import DataDirectory, write_private
from services.embedded.nats import Connection


@dataclass(frozen=True, slots=True)
class Place:
    """Where this instance lives. `demo_url` is the demo server's endpoint, None without one."""

    directory: DataDirectory
    public_url: str
    nats: Connection
    demo_url: str | None


def derive(place: Place) -> dict[Name, Settings]:
    """Settings of every service. Raises `BadSettings` with each wrong variable of any of them, once."""
    fixed: dict[str, object] = {
        "public_url": place.public_url,
        "data_dir": place.directory.path,
        "nats_url": place.nats.url,
        "nats_user": place.nats.user,
        "nats_password": place.nats.password,
    }
    session_key = place.directory.remembered("session.key", new_session_key)
    defaults_of_all: dict[str, object] = {
        "log_format": "console",
        "log_level": "warning",
    }  # a person watches the terminal
    defaults: dict[Name, dict[str, object]] = {
        # Whoever runs everything on their own machine runs the commands of its servers there too.
        "gateway": {"gateway_session_key": session_key, "gateway_stdio": "on"},
        "policy": {"policy_demo_url": place.demo_url},
        "credentials": {"credentials_create_master_key": True},
    }
    derived: dict[Name, Settings] = {}
    problems: list[str] = []
    for name in NAMES:
        wanted = defaults_of_all | defaults.get(name, {})
        own = {field: value for field, value in wanted.items() if not _given(field)}
        try:
            derived[name] = load(settings_class(name), **fixed, **own)
        except BadSettings as error:
            problems += str(error).splitlines()
    if problems:
        raise BadSettings("\n".join(dict.fromkeys(problems)))
    return derived


def describe_gateway(place: Place, settings: Settings) -> None:
    """Write `gateway.env`: the environment of a further gateway process beside this instance, for a shell."""
    values = {
        "public_url": settings.public_url,
        "nats_url": place.nats.url,
        "nats_user": place.nats.user,
        "nats_password": place.nats.password,
        "gateway_session_key": settings.model_dump()["gateway_session_key"].get_secret_value(),
        "gateway_stdio": settings.model_dump()["gateway_stdio"],
    }
    lines = [f"{PREFIX}{name.upper()}={shlex.quote(value)}\n" for name, value in values.items()]
    write_private(place.directory.path / "gateway.env", "".join(lines))


def new_session_key() -> str:
    """32 random bytes in base64, as the gateway wants its key."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _given(field: str) -> bool:
    return f"{PREFIX}{field}".upper() in {name.upper() for name in os.environ}
