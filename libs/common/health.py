"""`/healthz` (the process runs) and `/readyz` (it can do its work), one set per service.

In embedded mode the dispatcher asks each app and answers for all of them.
"""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common.bus import Bus
from libs.common.control.follower import Follower
from libs.common.journal import Journal

# Name of a check -> None when well, otherwise what is wrong and what to do.
Checks = Mapping[str, Callable[[], str | None]]


def checks(bus: Bus, follower: Follower, journal: Journal) -> Checks:
    """What a service needs that changes the control log and records who did it."""
    return {
        "bus": lambda: None if bus.connected else "NATS is not connected",
        "control": lambda: None if follower.complete else "the control log has not been read yet",
        "journal": journal.problem,
    }


def routes(checks: Checks) -> list[Route]:
    """Routes for a service whose readiness is the conjunction of `checks`."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        failing = {name: problem for name, check in checks.items() if (problem := check())}
        if failing:
            return JSONResponse({"status": "not ready", "failing": failing}, 503)
        return JSONResponse({"status": "ready", "checks": sorted(checks)})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
