"""What every app of the console has, from one place, so that none can lack it."""

from collections.abc import Mapping
from types import MappingProxyType

from fastapi import FastAPI

from libs.common import errors
from libs.common.control.tables import Tables
from libs.common.settings import Settings
from libs.common.web.frame import install_pages
from libs.common.web.limits import BODY_LIMIT, BodyLimit
from libs.common.web.session import install_doorkeeper


def install_console(
    app: FastAPI,
    settings: Settings,
    tables: Tables,
    *,
    body_limit: int = BODY_LIMIT,
    larger: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Give `app` errors as problem details or pages, the doorkeeper, and a limit on bodies in bytes, which is
    larger for the paths that `larger` names.

    Call once, in the service's factory.
    """
    errors.install(app)
    install_pages(app)
    install_doorkeeper(app, settings, tables)
    app.add_middleware(BodyLimit, limit=body_limit, larger=larger)
