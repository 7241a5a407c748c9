"""Settings of the activity service."""

from pydantic import Field, SecretStr

from libs.common.settings import Settings

IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"


class ActivitySettings(Settings):
    """Where the record of what happened is kept, and for how long."""

    activity_clickhouse_url: SecretStr | None = Field(
        None,
        description="ClickHouse server, as `https://user:password@host:port`. "
        "Without one an engine in this process (chDB) keeps the data under the data directory.",
    )
    activity_clickhouse_database: str = Field(
        "lockgate", pattern=IDENTIFIER, description="Database in ClickHouse; created when it is not there."
    )
    activity_retention_days: int = Field(
        400, ge=1, le=36_500, description="Days after which records are deleted, whole months at a time."
    )
    activity_read_seconds: float = Field(
        10.0, gt=0, le=600, description="Longest time that one query of the dashboard or the API may take."
    )
