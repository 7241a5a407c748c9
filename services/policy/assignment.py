"""Puts people into the group that the organization's identity provider names: auth asks, over the bus."""

from functools import partial

from libs.common.bus import Bus
from libs.common.control.entries import User
from libs.common.requests import ASSIGN_GROUP, AssignedGroup, AssignGroup
from services.policy.changes import Changes
from services.policy.store import PolicyStore

BY_PROVIDER = "sso"  # who acts, in the record


class Assignment:
    """Answers `policy.assign_group`. Each change is an `admin_events` record."""

    def __init__(self, bus: Bus, store: PolicyStore, changes: Changes) -> None:
        self._bus, self._store, self._changes = bus, store, changes

    async def start(self) -> None:
        await self._bus.serve(ASSIGN_GROUP, AssignGroup, self.assign)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def assign(self, query: AssignGroup) -> AssignedGroup:
        provider = User(version=0, id=BY_PROVIDER, email=query.source)
        write = partial(self._store.members.assign, query.user, query.groups)
        done = await self._changes.make(provider, "member_assigned", write)
        assert done.after
        return AssignedGroup(group=done.after.group, complete=done.receipt.complete)
