"""Every query of accounts: the credentials of people and of the organization."""

import contextlib
import hmac
import math
from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import tuple_
from sqlmodel import col, select

from libs.common.clock import iso, now
from libs.common.control.entries import AnyEntry
from libs.common.errors import Conflict
from libs.common.ids import new_id
from services.credentials.domain import (
    REASON_LENGTH,
    Account,
    Change,
    CredentialUnreadable,
    Draft,
    NoCredential,
    Owner,
)
from services.credentials.store.database import Database, KeyRetired, envelope_of, seal
from services.credentials.store.rows import (
    account_of,
    choose_newest,
    fill,
    find_chosen,
    find_replaced,
    name_of,
    require,
    require_chosen,
    rows_of,
    take_away,
    unchoose_others,
)
from services.credentials.tables import AccountRow
from services.credentials.vault import DataKey, Envelope

START = ("", "", "")  # before all others
MOST = 20  # accounts of one owner for one server
ATTEMPTS = 5


class Accounts:
    """The accounts of one vault. Those that were removed are seen by nobody but `removed`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- reading ----------------------------------------------------------------------------------

    def all(self, after: tuple[str, str, str] = START, limit: int | None = None) -> list[Account]:
        """Accounts by slug, user and id, from the one following `after`."""
        place = tuple_(col(AccountRow.slug), col(AccountRow.user_id), col(AccountRow.id))
        query = select(AccountRow).where(place > tuple_(*after), AccountRow.state != "removed")
        query = query.order_by(col(AccountRow.slug), col(AccountRow.user_id), col(AccountRow.id)).limit(limit)
        with self._database.read() as session:
            return [account_of(row) for row in session.exec(query)]

    def of_user(self, user: str) -> list[Account]:
        """The accounts of somebody (or of `ORGANIZATION`), by slug, the oldest first."""
        query = select(AccountRow).where(AccountRow.user_id == user, AccountRow.state != "removed")
        with self._database.read() as session:
            rows = session.exec(query.order_by(col(AccountRow.slug), col(AccountRow.id)))
            return [account_of(row) for row in rows]

    def users(self) -> set[str]:
        """Whose accounts there are."""
        with self._database.read() as session:
            query = select(AccountRow.user_id).where(AccountRow.state != "removed").distinct()
            return set(session.exec(query))

    def account(self, account_id: str) -> Account:
        """Raises `NoCredential`."""
        with self._database.read() as session:
            return account_of(require(session, account_id))

    def chosen(self, owner: Owner) -> Account:
        """The account that is used for `owner`. Raises `NoCredential`."""
        with self._database.read() as session:
            return account_of(require_chosen(session, owner))

    def open(self, account_id: str) -> tuple[Account, bytes]:
        """The account with its secret, whatever its state, also after it was removed. Raises `NoCredential`,
        and as `Vault.open`."""
        with self._database.read() as session:
            row = session.get(AccountRow, account_id)
            if row is None:
                raise NoCredential
            return self._opened(account_of(row), envelope_of(row))

    def open_chosen(self, owner: Owner) -> tuple[Account, bytes]:
        """The account that is used for `owner`, with its secret. Raises as `open`."""
        with self._database.read() as session:
            row = require_chosen(session, owner)
            found = account_of(row), envelope_of(row)
        return self._opened(*found)

    def _opened(self, account: Account, envelope: Envelope) -> tuple[Account, bytes]:
        return account, self._database.vault.open(envelope, name_of(account.id), account.identity())

    def entries(self, keys: Collection[str] | None) -> dict[str, AnyEntry]:
        """The entries that `keys` should have in the control log; `None` asks for all of them."""
        query = select(AccountRow).where(AccountRow.chosen, AccountRow.state != "removed")
        with self._database.read() as session:
            if keys is None:
                rows = list(session.exec(query))
            else:
                owners = [Owner(*key.split(".", 2)[1:]) for key in keys]
                rows = [row for owner in owners if (row := find_chosen(session, owner))]
            found = [account_of(row) for row in rows]
        return {account.owner.key: account.entry() for account in found}

    # -- writing ----------------------------------------------------------------------------------

    def put(self, owner: Owner, draft: Draft, changed_by: str, account_id: str = "") -> Change:
        """Store a credential and choose it. It replaces the account of that id, or else the one of the same
        kind and label, or else is a new one. The same again changes nothing.

        Raises `NoCredential` if there is no account of that id, `Conflict` for one too many."""
        if same := self._same(owner, draft):
            return Change(owner, same, same)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(KeyRetired):
                if change := self._put(owner, draft, changed_by, account_id):
                    return change
        raise Conflict(f"The accounts for {owner.slug} are being changed by somebody else all the time.")

    def _put(self, owner: Owner, draft: Draft, changed_by: str, account_id: str) -> Change | None:
        """None if another account is to be replaced by now."""
        with self._database.read() as session:
            found = find_replaced(session, owner, draft, account_id)
            if found is None and len(session.exec(rows_of(owner)).all()) >= MOST:
                raise Conflict(f"There are {MOST} accounts for {owner.slug} already. Disconnect one first.")
        fresh = found.id if found else new_id()
        data_key = self._database.new_data_key(name_of(fresh))
        with self._database.write() as (session, version):
            row = find_replaced(session, owner, draft, account_id)
            if (row and row.id) != (found and found.id):
                return None
            before, moment = account_of(row) if row else None, iso(now())
            after = Account(
                id=fresh, owner=owner, kind=draft.kind, label=draft.label, origin=draft.origin,
                version=version, sealed_version=version, expires_at=draft.expires_at,
                refresh_at=draft.refresh_at, changed_at=moment, changed_by=changed_by,
                created_at=before.created_at if before else moment,
                created_by=before.created_by if before else changed_by,
            )  # fmt: skip
            session.add(fill(row, after, seal(session, data_key, draft.secret, after.identity())))
            unchoose_others(session, after)
        return Change(owner, before, after)

    def renew(
        self,
        account_id: str,
        sealed_version: int,
        data_key: DataKey,
        secret: bytes,
        *,
        expires_at: float,
        refresh_at: float,
    ) -> Change | None:
        """Put a new secret in the place of the one of `sealed_version`, and end its refresh. None, and
        nothing is changed, if that was replaced since. `data_key` is for `name_of(account_id)`. Raises
        `KeyRetired`."""
        with self._database.write() as (session, version):
            row = session.get(AccountRow, account_id)
            if row is None or row.sealed_version != sealed_version:
                return None
            before = account_of(row)
            gone = before.state == "removed"
            after = replace(
                before, version=version, sealed_version=version, reason="", expires_at=expires_at,
                state="removed" if gone else "connected", refresh_at=0.0 if gone else refresh_at,
                changed_at=iso(now()),
            )  # fmt: skip
            fill(row, after, seal(session, data_key, secret, after.identity()))
            row.refresh_holder, row.refresh_until = "", 0.0
        return Change(before.owner, before, after)

    def need_attention(self, account_id: str, sealed_version: int, reason: str) -> Change | None:
        """Say that the secret of that version is no longer good, and why. None if it was replaced or removed
        since, or needs attention already."""
        with self._database.write() as (session, version):
            row = session.get(AccountRow, account_id)
            if row is None or row.sealed_version != sealed_version or row.state != "connected":
                return None
            before = account_of(row)
            row.state, row.reason, row.version = "attention", reason[:REASON_LENGTH], version
            row.refresh_at, row.refresh_holder, row.refresh_until = 0.0, "", 0.0
            return Change(before.owner, before, account_of(row))

    def choose(self, account_id: str) -> Change:
        """Use this account from now on. Raises `NoCredential`."""
        with self._database.write() as (session, version):
            row = require(session, account_id)
            before = account_of(row)
            if not row.chosen:
                row.chosen, row.version = True, version
                unchoose_others(session, before)
            return Change(before.owner, before, account_of(row))

    def remove(self, account_id: str) -> Change:
        """Take an account away from its owner; the newest other one is chosen. One of the kind `oauth` stays,
        as `removed`, until `forget`. Raises `NoCredential`."""
        with self._database.write() as (session, version):
            row = require(session, account_id)
            before = account_of(row)
            take_away(session, row)
            if before.chosen:
                choose_newest(session, before.owner, version)
        return Change(before.owner, before, None)

    def remove_all(self, owner: Owner) -> list[Change]:
        """Take all accounts for a server away from `owner`. Returns what was there."""
        with self._database.write() as (session, _):
            rows = list(session.exec(rows_of(owner)))
            changes = [Change(owner, account_of(row), None) for row in rows]
            for row in rows:
                take_away(session, row)
        return changes

    # -- what was removed -------------------------------------------------------------------------

    def removed(self, by: float = math.inf, limit: int = 100) -> list[Account]:
        """Accounts that were removed and whose provider is to be told by then, in Unix seconds: the one that
        waits longest for its turn (`refresh_at`) first."""
        query = select(AccountRow).where(AccountRow.state == "removed", AccountRow.refresh_at <= by)
        query = query.order_by(col(AccountRow.refresh_at), col(AccountRow.changed_at)).limit(limit)
        with self._database.read() as session:
            return [account_of(row) for row in session.exec(query)]

    def forget(self, account_id: str) -> None:
        """Delete an account that was removed."""
        with self._database.write() as (session, _):
            row = session.get(AccountRow, account_id)
            if row and row.state == "removed":
                session.delete(row)

    def _same(self, owner: Owner, draft: Draft) -> Account | None:
        """The account that is `draft` already, if its owner has it chosen and it is well."""
        if draft.kind != "api_key":  # tokens are never the same
            return None
        try:
            account, secret = self.open_chosen(owner)
        except (NoCredential, CredentialUnreadable):
            return None
        same = (account.kind, account.label, account.origin) == (draft.kind, draft.label, draft.origin)
        well = account.state == "connected"
        return account if same and well and hmac.compare_digest(secret, draft.secret) else None
