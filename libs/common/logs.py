"""Structured logs on standard error: one JSON object a line, or readable lines on a laptop."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from libs.common.settings import Settings

# Names under which a secret could be logged by mistake. Values are dropped before rendering.
SECRET_NAMES = ("password", "secret", "token", "authorization", "cookie", "api_key", "code_verifier")


def _drop_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in event:
        if any(secret in name.lower() for secret in SECRET_NAMES):
            event[name] = "[redacted]"
    return event


def configure(settings: Settings) -> None:
    """Set up structlog and route the standard library's loggers (uvicorn, alembic) through it."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _drop_secrets,
    ]
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            # Plain tracebacks: the default ones show local variables, and with them tokens and passwords.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for noisy in ("uvicorn.access", "httpx", "httpx2", "alembic", "nats"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
