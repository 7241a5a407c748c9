"""Asks the demo server what it offers, so that it can be allowed or denied from the first minute on."""

import asyncio
from functools import partial

import structlog

from libs.common.clock import elapsed
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.policy.changes import POLICY, Changes
from services.policy.domain import Precondition, Server
from services.policy.store import DEMO, PolicyStore
from services.policy.upstream import FeaturesUnknown, Upstreams

log = structlog.get_logger(__name__)

RETRY_AFTER = 1.0  # seconds
PATIENCE = 300.0  # seconds; the gateway that has to ask it starts after policy, on slow machines long after


class DemoFeatures:
    """Learns them once in the background if they are `wanted`. That it fails is no failure of the service."""

    def __init__(self, store: PolicyStore, upstreams: Upstreams, changes: Changes, *, wanted: bool) -> None:
        self._store, self._upstreams, self._changes = store, upstreams, changes
        self._wanted = wanted
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._wanted:
            self._task = asyncio.create_task(self._learn(), name="demo-features")

    async def stop(self) -> None:
        await cancel(self._task)

    async def _learn(self) -> None:
        until, known = elapsed() + PATIENCE, ""
        while elapsed() < until:
            try:
                return await self._attempt()
            except FeaturesUnknown as error:
                if error.detail != known:  # said once, not with each attempt
                    log.info("demo_unknown", detail=error.detail)
                known = error.detail
            except LockgateError as error:  # an administrator changed or deleted it: theirs to decide
                log.info("demo_not_read", error=str(error))
                return None
            await asyncio.sleep(RETRY_AFTER)
        log.warning("demo_given_up", seconds=PATIENCE, detail=known)
        return None

    async def _attempt(self) -> None:
        server: Server = await asyncio.to_thread(self._store.servers.get, DEMO)
        offer = await self._upstreams.offer(server)
        write = partial(self._store.servers.set_features, DEMO, *offer, Precondition(version=server.version))
        await self._changes.make(POLICY, "features_learned", write)
