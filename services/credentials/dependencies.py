"""What routes ask for in their signatures."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from libs.common.control.follower import Follower
from services.credentials.changes import Changes
from services.credentials.rotation import Rotation
from services.credentials.settings import CredentialsSettings
from services.credentials.store import CredentialStore


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with. One per app, in `app.state.parts`."""

    settings: CredentialsSettings
    store: CredentialStore
    changes: Changes
    follower: Follower
    rotation: Rotation


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Work = Annotated[Parts, Depends(_parts)]
