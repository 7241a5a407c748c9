"""The five services, found by convention.

Service `auth` is `services.auth.app:create_app` and `services.auth.settings:AuthSettings`, and so on. It is
imported only when it is asked for: the gateway's image has no FastAPI, and `lockgate version` needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from libs.common.settings import Settings

Name: TypeAlias = Literal["auth", "policy", "credentials", "activity", "gateway"]

# In the order in which they start: those that write the control log before the one that decides by it.
NAMES: tuple[Name, ...] = get_args(Name)


def settings_class(name: Name) -> "type[Settings]":
    """The settings of service `name`."""
    cls: type[Settings] = getattr(import_module(f"services.{name}.settings"), f"{name.title()}Settings")
    return cls


def create_app(name: Name, settings: "Settings") -> "ASGIApp":
    """The ASGI app of service `name`, which starts working when its lifespan is entered."""
    app: ASGIApp = import_module(f"services.{name}.app").create_app(settings)
    return app
