"""Answers gateways whose token an upstream did not take."""

from libs.common.bus import Bus
from libs.common.requests import REFRESH_CREDENTIAL, RefreshCredential, RefreshedCredential
from services.credentials.domain import Owner
from services.credentials.oauth.refreshing import Refreshing

AT_ONCE = 1000  # they wait for a few refreshes, not for each other


class RefreshServer:
    """Answers `credentials.refresh`."""

    def __init__(self, bus: Bus, refreshing: Refreshing) -> None:
        self._bus, self._refreshing = bus, refreshing

    async def start(self) -> None:
        await self._bus.serve(REFRESH_CREDENTIAL, RefreshCredential, self.refresh, at_once=AT_ONCE)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def refresh(self, query: RefreshCredential) -> RefreshedCredential:
        """Raises as `Refreshing.newer`."""
        owner = Owner(query.slug, query.user)
        return RefreshedCredential(version=await self._refreshing.newer(owner, query.version, query.asker))
