"""Changes of the vault: what the record tells of them, which is never a secret."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from libs.common.control import changes
from libs.common.control import owner as control
from libs.common.control.entries import User
from libs.common.journal import Journal
from services.credentials.domain import Account, Change, Owner, Provider

LOCKGATE = User(version=0, id="lockgate", email="")  # who does what nobody asked for


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was carried out: what is there now, and where it holds."""

    after: Account | None
    receipt: control.Receipt


class Changes:
    """Carries out writes of the store for somebody: an administrator, or the credential's owner."""

    def __init__(self, owner: control.Owner, journal: Journal) -> None:
        self._changes, self._owner = changes.Changes(owner, journal), owner

    async def nothing(self) -> control.Receipt:
        """The receipt where nothing had to be changed."""
        return await self._owner.publish()

    async def make(self, by: User, event: str, write: Callable[[], Change]) -> Done:
        """Carry out `write` and record it as `event`. Raises what `write` raises."""

        def told(change: Change) -> changes.Told:
            return changes.Told(
                [change.owner.key], _json(change.before), _json(change.after), change.happened
            )

        change, receipt = await self._changes.make(by, event, write, told)
        return Done(change.after, receipt)

    async def make_all(
        self, by: User, event: str, subject: Owner, write: Callable[[], Sequence[Change]]
    ) -> control.Receipt:
        """The same for a write of several accounts; `subject` is what the record is about."""

        def told(done: Sequence[Change]) -> changes.Told:
            keys = dict.fromkeys([subject.key, *(change.owner.key for change in done)])
            before = [_told(change.before) for change in done if change.before]
            return changes.Told(
                list(keys), msgspec.json.encode(before).decode() if before else "", "", bool(done)
            )

        _, receipt = await self._changes.make(by, event, write, told)
        return receipt

    async def provide(
        self,
        by: User,
        slug: str,
        write: Callable[[], tuple[Provider | None, Provider | None, list[Owner]]],
    ) -> tuple[Provider | None, control.Receipt]:
        """Carry out a write of a provider, which may change the entries of several owners."""

        def told(done: tuple[Provider | None, Provider | None, list[Owner]]) -> changes.Told:
            before, after, owners = done
            keys = [owner.key for owner in owners]
            return changes.Told(
                keys, _provider(before), _provider(after), before != after, subject=f"provider.{slug}"
            )

        (_, after, _), receipt = await self._changes.make(by, "provider_changed", write, told)
        return after, receipt


def _json(account: Account | None) -> str:
    return msgspec.json.encode(_told(account)).decode() if account else ""


def _told(account: Account) -> dict[str, object]:
    return {
        "account": account.id,
        "kind": account.kind,
        "label": account.label,
        "origin": account.origin,
        "version": account.version,
        "state": account.state,
        "chosen": account.chosen,
    }


def _provider(provider: Provider | None) -> str:
    if provider is None:
        return ""
    raw = {"layout": provider.layout, "settings": provider.settings}
    told = {name: msgspec.Raw(text.encode()) for name, text in raw.items() if text}
    return msgspec.json.encode({"kind": provider.kind, **told, "version": provider.version}).decode()
