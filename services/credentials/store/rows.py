"""Rows of accounts: what they say, and whose they are. Within a transaction of the caller."""

from typing import get_args

from sqlalchemy import update
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from libs.common.clock import iso, now
from services.credentials.domain import Account, Draft, Kind, NoCredential, Owner, State
from services.credentials.store.database import put_envelope
from services.credentials.tables import AccountRow
from services.credentials.vault import Envelope


def name_of(account_id: str) -> str:
    """The name of an account's record in the vault."""
    return f"account/{account_id}"


def account_of(row: AccountRow) -> Account:
    assert row.kind in get_args(Kind)
    assert row.state in get_args(State)
    return Account(
        id=row.id, owner=Owner(row.slug, row.user_id), kind=row.kind, label=row.label,  # type: ignore[arg-type]
        origin=row.origin, version=row.version, sealed_version=row.sealed_version,
        state=row.state, reason=row.reason, chosen=row.chosen, expires_at=row.expires_at,  # type: ignore[arg-type]
        refresh_at=row.refresh_at, created_at=row.created_at, created_by=row.created_by,
        changed_at=row.changed_at, changed_by=row.changed_by,
    )  # fmt: skip


def fill(row: AccountRow | None, account: Account, envelope: Envelope) -> AccountRow:
    """`row`, or a new one, with all of `account` in it."""
    row = row or AccountRow()  # type: ignore[call-arg]
    row.id, row.slug, row.user_id = account.id, account.owner.slug, account.owner.user
    row.kind, row.label, row.origin = account.kind, account.label, account.origin
    row.version, row.sealed_version = account.version, account.sealed_version
    row.state, row.reason, row.chosen = account.state, account.reason, account.chosen
    row.expires_at, row.refresh_at = account.expires_at, account.refresh_at
    row.refresh_holder, row.refresh_until = "", 0.0
    row.created_at, row.created_by = account.created_at, account.created_by
    row.changed_at, row.changed_by = account.changed_at, account.changed_by
    put_envelope(row, envelope)
    return row


def require(session: Session, account_id: str) -> AccountRow:
    row = session.get(AccountRow, account_id)
    if row is None or row.state == "removed":
        raise NoCredential("There is no such account.")
    return row


def rows_of(owner: Owner) -> SelectOfScalar[AccountRow]:
    """The accounts of one owner."""
    whose = select(AccountRow).where(AccountRow.slug == owner.slug, AccountRow.user_id == owner.user)
    return whose.where(AccountRow.state != "removed")


def find_chosen(session: Session, owner: Owner) -> AccountRow | None:
    return session.exec(rows_of(owner).where(AccountRow.chosen)).first()


def require_chosen(session: Session, owner: Owner) -> AccountRow:
    row = find_chosen(session, owner)
    if row is None:
        raise NoCredential(f"No credential is stored for {owner.slug}.")
    return row


def find_replaced(session: Session, owner: Owner, draft: Draft, account_id: str) -> AccountRow | None:
    """The account that `draft` replaces."""
    if account_id:
        row = require(session, account_id)
        if Owner(row.slug, row.user_id) != owner:
            raise NoCredential("There is no such account.")
        return row
    same = rows_of(owner).where(AccountRow.kind == draft.kind, AccountRow.label == draft.label)
    return session.exec(same).first()


def unchoose_others(session: Session, account: Account) -> None:
    others = update(AccountRow).where(
        col(AccountRow.slug) == account.owner.slug,
        col(AccountRow.user_id) == account.owner.user,
        col(AccountRow.id) != account.id,
    )
    session.execute(others.values(chosen=False))


def choose_newest(session: Session, owner: Owner, version: int) -> None:
    if row := session.exec(rows_of(owner).order_by(col(AccountRow.changed_at).desc())).first():
        row.chosen, row.version = True, version


def take_away(session: Session, row: AccountRow) -> None:
    if row.kind == "oauth":
        row.state, row.chosen, row.changed_at = "removed", False, iso(now())
        row.refresh_at, row.refresh_holder, row.refresh_until = 0.0, "", 0.0
    else:
        session.delete(row)
    session.flush()
