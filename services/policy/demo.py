"""Asks the demo server for its tools, so that they can be allowed or denied from the first minute on."""

import asyncio
from functools import partial

import structlog

from libs.common.control.entries import User
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.policy.changes import Changes
from services.policy.domain import Precondition, Server
from services.policy.store import DEMO, PolicyStore
from services.policy.upstream import ToolsUnknown, Upstreams

log = structlog.get_logger(__name__)

ATTEMPTS = 5
RETRY_AFTER = 1.0  # seconds

# Who the record names: nobody pressed a button.
_POLICY = User(version=0, id="policy", email="")


class DemoTools:
    """Reads them once in the background if they are `wanted`. That it fails is no failure of the service."""

    def __init__(self, store: PolicyStore, upstreams: Upstreams, changes: Changes, *, wanted: bool) -> None:
        self._store, self._upstreams, self._changes = store, upstreams, changes
        self._wanted = wanted
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._wanted:
            self._task = asyncio.create_task(self._read(), name="demo-tools")

    async def stop(self) -> None:
        await cancel(self._task)

    async def _read(self) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return await self._attempt()
            except ToolsUnknown as error:
                log.info("demo_tools_unknown", attempt=attempt + 1, detail=error.detail)
            except LockgateError as error:  # an administrator changed or deleted it: theirs to decide
                log.info("demo_tools_not_read", error=str(error))
                return None
            await asyncio.sleep(RETRY_AFTER)
        return None

    async def _attempt(self) -> None:
        server: Server = await asyncio.to_thread(self._store.server, DEMO)
        tools = await self._upstreams.tools(server)
        write = partial(self._store.set_tools, DEMO, tools, Precondition(version=server.version))
        await self._changes.make(_POLICY, "tools_learned", write)
