"""Admin events, waited for."""

import asyncio
from typing import Any

from tests.unit.conftest import Shipped


async def admin_events(shipped: Shipped, count: int) -> list[dict[str, Any]]:
    """The first `count` of them, in order."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found = await shipped("admin_events")
            await asyncio.sleep(0.02)
    return found[:count]
