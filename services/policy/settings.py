"""Settings of the policy service."""

from pydantic import Field

from libs.common.settings import Settings
from libs.common.sql import sqlite_url


class PolicySettings(Settings):
    """What policy needs to know beside the common settings."""

    policy_database_url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of policy's database; SQLite in the data directory by default.",
    )
    policy_demo_url: str | None = Field(
        None, description="URL of a demo upstream that the first start registers as the server `demo`."
    )
    policy_upstream_timeout: float = Field(
        8.0, gt=0, le=60, description="Seconds that a server has to answer when it is asked what it offers."
    )
    policy_start_timeout: float = Field(
        45.0,
        gt=0,
        le=300,
        description="The same for stdio servers, which may have to be started and their packages fetched.",
    )
    policy_relearn_every: float = Field(
        900.0,
        ge=0,
        le=7 * 24 * 3600,
        description="Seconds after which a server is asked again for its tools, to see whether they changed; "
        "0 for never. Lists that people ask for are looked at whatever it says.",
    )

    @property
    def database_url(self) -> str:
        """The URL of the database in use."""
        return self.policy_database_url or sqlite_url(self.data_dir / "policy.db")
