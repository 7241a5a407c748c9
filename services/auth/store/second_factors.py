"""What people have beside their password: authenticator app, recovery codes, passkeys."""

from collections.abc import Sequence

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from services.auth.second_factor.domain import Factors, Passkey, Totp
from services.auth.store.database import Database, lock_user, one_row, read_as, unix_now
from services.auth.store.models import PasskeyRow, RecoveryCodeRow, TotpRow, UserRow


class SecondFactors:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, user_id: str) -> Factors:
        with self._database.transaction() as session:
            return _factors(session, user_id)

    def password_hash(self, user_id: str) -> str:
        """Of the account's password; empty when it has none."""
        with self._database.transaction() as session:
            row = session.get(UserRow, user_id)
            return row.password_hash if row else ""

    # -- authenticator apps -----------------------------------------------------------------------

    def put_totp(self, totp: Totp) -> None:
        """Add the user's app, or replace it by another."""
        with self._database.transaction() as session:
            lock_user(session, totp.user_id)
            session.merge(TotpRow(**{name: getattr(totp, name) for name in totp.__slots__}))

    def use_step(self, user_id: str, sealed_secret: str, step: int) -> bool:
        """Note that the code of a time step was used. False when it, or a later one, was before."""
        statement = update(TotpRow).where(
            col(TotpRow.user_id) == user_id,
            col(TotpRow.sealed_secret) == sealed_secret,
            col(TotpRow.last_step) < step,
        )
        with self._database.transaction() as session:
            return one_row(session, statement.values(last_step=step))

    # -- recovery codes ---------------------------------------------------------------------------

    def put_recovery_codes(self, user_id: str, hashes: Sequence[str]) -> None:
        """Replace the user's recovery codes, used and unused."""
        with self._database.transaction() as session:
            lock_user(session, user_id)
            session.execute(delete(RecoveryCodeRow).where(col(RecoveryCodeRow.user_id) == user_id))
            session.add_all(RecoveryCodeRow(hash=code, user_id=user_id) for code in hashes)

    def use_recovery_code(self, user_id: str, code_hash: str) -> bool:
        """False when the user has no such code, or has used it."""
        statement = update(RecoveryCodeRow).where(
            col(RecoveryCodeRow.hash) == code_hash,
            col(RecoveryCodeRow.user_id) == user_id,
            col(RecoveryCodeRow.used_at).is_(None),
        )
        with self._database.transaction() as session:
            return one_row(session, statement.values(used_at=unix_now()))

    # -- passkeys ---------------------------------------------------------------------------------

    def passkey(self, passkey_id: str) -> Passkey | None:
        with self._database.transaction() as session:
            row = session.get(PasskeyRow, passkey_id)
            return read_as(Passkey, row) if row else None

    def add_passkey(self, passkey: Passkey, most: int) -> bool:
        """False when it is there already, or the user has `most`."""
        query = select(PasskeyRow.id).where(PasskeyRow.user_id == passkey.user_id)
        with self._database.transaction() as session:
            lock_user(session, passkey.user_id)
            if session.get(PasskeyRow, passkey.id) or len(session.exec(query).all()) >= most:
                return False
            session.add(PasskeyRow(**{name: getattr(passkey, name) for name in passkey.__slots__}))
            return True

    def use_passkey(self, passkey: Passkey, sign_count: int) -> bool:
        """Note that it was used. False when somebody else did so since `passkey` was read."""
        statement = update(PasskeyRow).where(
            col(PasskeyRow.id) == passkey.id, col(PasskeyRow.sign_count) == passkey.sign_count
        )
        with self._database.transaction() as session:
            return one_row(session, statement.values(sign_count=sign_count, last_used_at=unix_now()))

    # -- removal ----------------------------------------------------------------------------------

    def remove(
        self, user_id: str, *, totp: bool = False, passkey: str = "", at_least: int = 0
    ) -> Factors | None:
        """Remove the app or one passkey, and with the last of them the recovery codes. Returns what there was
        before; None, and nothing is removed, when fewer than `at_least` would be left."""
        with self._database.transaction() as session:
            lock_user(session, user_id)
            before = _factors(session, user_id)
            chosen = totp and before.totp is not None
            chosen_keys = [key for key in before.passkeys if key.id == passkey]
            left = before.number - chosen - len(chosen_keys)
            if left < at_least:
                return None
            if chosen:
                session.execute(delete(TotpRow).where(col(TotpRow.user_id) == user_id))
            for key in chosen_keys:
                session.execute(delete(PasskeyRow).where(col(PasskeyRow.id) == key.id))
            if not left:
                session.execute(delete(RecoveryCodeRow).where(col(RecoveryCodeRow.user_id) == user_id))
            return before

    def remove_all(self, user_id: str) -> Factors:
        """Returns what there was."""
        with self._database.transaction() as session:
            lock_user(session, user_id)
            before = _factors(session, user_id)
            for table in (TotpRow, PasskeyRow, RecoveryCodeRow):
                session.execute(delete(table).where(col(table.user_id) == user_id))
            return before


def _factors(session: Session, user_id: str) -> Factors:
    totp = session.get(TotpRow, user_id, populate_existing=True)
    keys = select(PasskeyRow).where(PasskeyRow.user_id == user_id).order_by(col(PasskeyRow.created_at))
    unused = select(func.count()).where(
        col(RecoveryCodeRow.user_id) == user_id, col(RecoveryCodeRow.used_at).is_(None)
    )
    return Factors(
        totp=read_as(Totp, totp) if totp else None,
        passkeys=tuple(read_as(Passkey, row) for row in session.exec(keys)),
        recovery_left=session.scalar(unused) or 0,
    )
