"""Requests of clients that cannot open a browser (RFC 8628), from their beginning to what the person said.

What a person allows becomes an authorization code under the same hash, which the client's next poll redeems
as `Grants.redeem` redeems any.
"""

from sqlalchemy import delete, update
from sqlmodel import col, select

from services.auth.domain import CODE_LIFETIME, Code, DeviceCode, Polled
from services.auth.store.database import Database, read_as, unix_now
from services.auth.store.models import CodeRow, DeviceCodeRow

SLOWER = 5  # seconds more between two polls, for who polls too often (section 3.5)


class DeviceCodes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, code: DeviceCode) -> None:
        """Raises `IntegrityError` when somebody has the same user code."""
        with self._database.transaction() as session:
            session.execute(delete(DeviceCodeRow).where(col(DeviceCodeRow.expires_at) < unix_now()))
            session.add(DeviceCodeRow(**{name: getattr(code, name) for name in code.__slots__}))

    def waiting(self, user_code: str) -> DeviceCode | None:
        """The request that shows `user_code`, if it still waits for an answer."""
        query = select(DeviceCodeRow).where(
            DeviceCodeRow.user_code == user_code,
            DeviceCodeRow.decision == "",
            DeviceCodeRow.expires_at > unix_now(),
        )
        with self._database.transaction() as session:
            row = session.exec(query).first()
            return read_as(DeviceCode, row) if row else None

    def decide(self, code: DeviceCode, allowed: Code | None) -> bool:
        """Note what the person said; `allowed` is what the client may redeem. False if it was too late."""
        take = update(DeviceCodeRow).where(
            col(DeviceCodeRow.hash) == code.hash,
            col(DeviceCodeRow.decision) == "",
            col(DeviceCodeRow.expires_at) > unix_now(),
        )
        with self._database.transaction() as session:
            done = session.execute(take.values(decision="allowed" if allowed else "denied"))
            if done.rowcount != 1:  # type: ignore[attr-defined]
                return False
            if allowed:
                values = {name: getattr(allowed, name) for name in allowed.__slots__}
                # Until the next poll, which may be late, and as long as the client goes on asking.
                values["expires_at"] = max(code.expires_at, unix_now() + CODE_LIFETIME)
                session.add(CodeRow(**values))
            return True

    def poll(self, device_hash: str) -> Polled | None:
        """A request as its client finds it now; None if there is none. Too early a poll makes the next ones
        wait longer."""
        with self._database.transaction() as session:
            now = unix_now()
            touch = update(DeviceCodeRow).where(col(DeviceCodeRow.hash) == device_hash)
            session.execute(touch.values(interval=DeviceCodeRow.interval))  # takes the lock
            row = session.get(DeviceCodeRow, device_hash, populate_existing=True)
            if row is None:
                return None
            too_early = now - row.polled_at < row.interval
            row.polled_at = now
            if too_early:
                row.interval += SLOWER
            return Polled(read_as(DeviceCode, row), too_early)
