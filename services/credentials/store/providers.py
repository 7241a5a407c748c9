"""Every query of providers: how the credentials of each server work."""

from typing import get_args

from sqlalchemy import update
from sqlmodel import Session, col, select

from libs.common.clock import iso, now
from services.credentials.domain import Kind, Owner, Provider
from services.credentials.store.database import Database, envelope_of, put_envelope, seal
from services.credentials.tables import AccountRow, ProviderRow
from services.credentials.vault import Envelope

FIELDS_CHANGED = "The server wants other values now: enter them again."


class Providers:
    """The providers of one vault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, Provider]:
        """By slug. These are for showing: `open` checks that nobody changed one in the database."""
        with self._database.read() as session:
            return {row.slug: _provider(row) for row in session.exec(select(ProviderRow))}

    def find(self, slug: str) -> Provider | None:
        """One that is only shown."""
        with self._database.read() as session:
            row = session.get(ProviderRow, slug)
            return _provider(row) if row else None

    def open(self, slug: str) -> tuple[Provider, bytes] | None:
        """The provider and its secret; None if nobody configured one. Raises as `Vault.open`."""
        with self._database.read() as session:
            row = session.get(ProviderRow, slug)
            if row is None:
                return None
            provider, envelope = _provider(row), envelope_of(row)
        return provider, self._database.vault.open(envelope, name_of_provider(slug), provider.identity())

    def put(
        self,
        slug: str,
        kind: Kind,
        changed_by: str,
        *,
        layout: str = "",
        settings: str = "",
        secret: bytes = b"",
        renews: bool = False,
    ) -> tuple[Provider | None, Provider, list[Owner]]:
        """Set how the server's credentials work. Returns what was there before, what is there now, and whose
        entries in the control log are others now.

        `renews`: what is stored for it does not fit any longer, and needs attention. Raises `KeyRetired`.
        """
        data_key = self._database.new_data_key(name_of_provider(slug))
        with self._database.write() as (session, version):
            row = session.get(ProviderRow, slug)
            before = _provider(row) if row else None
            after = Provider(
                slug=slug, kind=kind, layout=layout, settings=settings, version=version,
                changed_at=iso(now()), changed_by=changed_by,
            )  # fmt: skip
            session.add(fill_provider(row, after, seal(session, data_key, secret, after.identity())))
            return before, after, _touch(session, slug, version, renews)

    def reseal(self, provider: Provider, secret: bytes) -> bool:
        """Replace the secret alone. False, and nothing is changed, if the provider is another by now. Raises
        `KeyRetired`."""
        data_key = self._database.new_data_key(name_of_provider(provider.slug))
        with self._database.write() as (session, _):
            row = session.get(ProviderRow, provider.slug)
            if row is None or _provider(row) != provider:
                return False
            put_envelope(row, seal(session, data_key, secret, provider.identity()))
            return True

    def delete(self, slug: str, *, renews: bool = False) -> tuple[Provider | None, list[Owner]]:
        """Delete the provider of a server, and return it and as `put`. One that is not there is no error."""
        with self._database.write() as (session, version):
            row = session.get(ProviderRow, slug)
            if row is None:
                return None, []
            session.delete(row)
            return _provider(row), _touch(session, slug, version, renews)


def _touch(session: Session, slug: str, version: int, renews: bool) -> list[Owner]:
    """Make everybody who holds a credential of the server in memory ask again. Returns whose they are."""
    touched = update(AccountRow).where(col(AccountRow.slug) == slug, col(AccountRow.state) != "removed")
    session.execute(touched.values(version=version))
    if renews:
        stale = touched.where(col(AccountRow.kind) == "api_key", col(AccountRow.state) == "connected")
        session.execute(stale.values(state="attention", reason=FIELDS_CHANGED))
    owners = select(AccountRow.slug, AccountRow.user_id).where(AccountRow.slug == slug, AccountRow.chosen)
    return [Owner(*owner) for owner in session.exec(owners)]


def name_of_provider(slug: str) -> str:
    """The name of a provider's record in the vault."""
    return f"provider/{slug}"


def fill_provider(row: ProviderRow | None, provider: Provider, envelope: Envelope) -> ProviderRow:
    """`row`, or a new one, with all of `provider` in it."""
    row = row or ProviderRow()  # type: ignore[call-arg]
    row.slug, row.kind, row.layout = provider.slug, provider.kind, provider.layout
    row.settings, row.version = provider.settings, provider.version
    row.changed_at, row.changed_by = provider.changed_at, provider.changed_by
    put_envelope(row, envelope)
    return row


def _provider(row: ProviderRow) -> Provider:
    assert row.kind in get_args(Kind)
    return Provider(
        slug=row.slug, kind=row.kind, layout=row.layout, settings=row.settings,  # type: ignore[arg-type]
        version=row.version, changed_at=row.changed_at, changed_by=row.changed_by,
    )  # fmt: skip
