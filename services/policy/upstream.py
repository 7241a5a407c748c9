"""What servers offer, learned from them by a gateway: only gateways reach them and run their processes."""

from typing import NamedTuple

import msgspec
import structlog

from libs.common.bus import Bus, Refused
from libs.common.definitions import unpack
from libs.common.errors import LockgateError, Unavailable
from libs.common.requests import (
    LEARN,
    LIST_PROCESSES,
    Learned,
    LearnServer,
    ListProcesses,
    Offered,
    ProcessList,
)
from services.policy.domain import Server
from services.policy.features import Features, beginning_of, told
from services.policy.pins import Sight
from services.policy.settings import PolicySettings

log = structlog.get_logger(__name__)

GATHER_WITHIN = 0.7  # seconds that a page may take for it
MARGIN = 2.0  # seconds more for the answer of the gateway, which gives up by itself


class FeaturesUnknown(LockgateError):
    """The server did not tell what it offers; the detail says why in one sentence."""

    status, type, title = 502, "upstream-failed", "The server did not tell what it offers"


class Offer(NamedTuple):
    """What a server offers when it is asked. The first time that is what an administrator takes it for."""

    features: Features
    sight: Sight


class Upstreams:
    """Asks gateways about servers."""

    def __init__(self, bus: Bus, settings: PolicySettings) -> None:
        self._bus, self._settings = bus, settings

    async def offer(self, server: Server) -> Offer:
        """What `server` offers now. Raises `FeaturesUnknown`."""
        within = self._patience(server)
        query = LearnServer(slug=server.slug, version=server.version, within=within)
        try:
            learned = await self._bus.request(LEARN, query, Learned, timeout=within + MARGIN)
            return Offer(_features(learned), _sight(learned, server))
        except Refused as error:
            raise FeaturesUnknown(error.detail) from error
        except Unavailable as error:
            raise FeaturesUnknown("No gateway answers that could ask it.") from error
        except ValueError as error:
            raise FeaturesUnknown("The gateway's answer cannot be read: is it of another version?") from error

    async def processes(self, slug: str, replicas: int) -> list[ProcessList]:
        """What runs of a stdio server, by replica; `replicas` are known to be there. Those that do not answer
        at once are left out."""
        query = ListProcesses(slug=slug)
        try:
            found = await self._bus.gather(LIST_PROCESSES, query, ProcessList, GATHER_WITHIN, replicas)
        except (Unavailable, msgspec.DecodeError) as error:
            log.warning("processes_unknown", server=slug, error=repr(error))
            return []
        return sorted(found, key=lambda answer: answer.replica)

    def _patience(self, server: Server) -> float:
        settings = self._settings
        if server.definition.transport == "stdio":
            return settings.policy_start_timeout
        return settings.policy_upstream_timeout


def _sight(learned: Learned, server: Server) -> Sight:
    """Raises `ValueError`."""
    return Sight(
        definitions=unpack(learned.definitions) if learned.definitions else (),
        version=server.version,
        adopt=not server.pins,
    )


def _features(learned: Learned) -> Features:
    return Features(
        tools=told("tools", _pairs(learned.tools)),
        prompts=told("prompts", _pairs(learned.prompts)),
        resources=told("resources", _pairs(learned.resources) + _templates(learned.templates)),
    )


def _pairs(offered: list[Offered]) -> list[tuple[str, str]]:
    return [(item.name, item.description) for item in offered]


def _templates(offered: list[Offered]) -> list[tuple[str, str]]:
    """Templates as the beginnings by which they are allowed or denied; the description says what they are."""
    return [
        (beginning_of(item.name), f"{item.name}: {item.description}" if item.description else item.name)
        for item in offered
    ]
