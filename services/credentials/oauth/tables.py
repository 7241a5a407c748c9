"""The table of what is under way."""

from sqlmodel import Field

from services.credentials.tables import Row


class AuthorizationRow(Row, table=True):
    """Somebody was sent to a provider and has not come back yet. `state` is the SHA-256 of the parameter, so
    that reading it here helps nobody to come back in their place. The envelope holds a `pending.Pending`."""

    __tablename__ = "authorizations"
    state: str = Field(primary_key=True)
    user_id: str  # who was sent
    session: str  # their login session
    key_id: str
    wrapped_key: bytes
    box: bytes
    expires_at: float  # Unix seconds
