"""The parts of the bridged lane at one replica, put together."""

import asyncio
from collections.abc import Callable

from libs.common.bus import Bus
from libs.common.decision.ladder import Call, Decision
from libs.common.lifecycle import cancel
from libs.common.tokens import Claims
from services.gateway.bridge.gate import Gate
from services.gateway.bridge.governed import Governor
from services.gateway.bridge.host import Whole
from services.gateway.bridge.relaying import Relaying
from services.gateway.bridge.upstreams import Upstreams
from services.gateway.links.processes import Processes
from services.gateway.links.spoken_eras import SpokenEras
from services.gateway.review import Review
from services.gateway.ticket import Shared

SWEEP = 1.0  # seconds
ENDPOINT_IDLE = 300.0  # seconds for which connections to an upstream are kept for the same caller


class Bridge:
    """A part (libs.common.lifecycle). `review` is a follower's callback."""

    def __init__(
        self,
        shared: Shared,
        bus: Bus,
        eras: SpokenEras,
        processes: Processes,
        *,
        decide: Callable[[Claims, Call], Decision],
        complete: Callable[[], bool],
        whole: Callable[[Governor], Whole],
    ) -> None:
        """`decide` decides by the log as it is known, lease or not; `complete`: all of the log is known;
        `whole` makes the endpoints for the gateway as a whole out of those of its servers."""

        def replica() -> str:
            return shared.journal.replica

        self._idle = shared.settings.gateway_session_idle
        self.review = Review(complete, self._review)
        self.upstreams = Upstreams(
            shared.pools,
            shared.tables,
            eras,
            processes,
            decide=decide,
            admit=shared.decide,
            replica=replica,
            renewed=shared.wallet.renew,
        )
        self.governor = Governor(shared, self.upstreams)
        self._relaying = Relaying(bus, shared.tables, replica)
        self.gate = Gate(
            shared,
            self.upstreams,
            self.governor,
            eras,
            relaying=self._relaying,
            whole=whole(self.governor),
        )
        self._relaying.serve = self.gate.relayed
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._relaying.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="bridge-sweeper")

    async def stop(self) -> None:
        """End all sessions, here and upstream."""
        await cancel(self._sweeper)
        await self._relaying.stop()
        await self.gate.host.stop()
        await self.upstreams.stop()

    def _review(self, _: str) -> None:
        """End what goes another way now."""
        self.upstreams.review()
        self.gate.host.review()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.gate.host.end_idle(self._idle)
            self.upstreams.close_idle(ENDPOINT_IDLE)
