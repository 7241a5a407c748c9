"""Forgets the group and the switch of those whom auth has removed."""

from functools import partial

from libs.common.bus import Bus
from libs.common.control.departures import Departures
from libs.common.control.follower import Follower
from services.policy.changes import POLICY, Changes
from services.policy.store import PolicyStore


def departures(bus: Bus, store: PolicyStore, changes: Changes, follower: Follower) -> Departures:
    """Each change is an `admin_events` record; who removed them, auth has recorded."""

    async def forget(user: str) -> None:
        await changes.make(POLICY, "member_forgotten", partial(store.members.forget, user))

    return Departures(bus, follower, store.members.kept, forget)
