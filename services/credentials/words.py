"""How the pages say things."""

import shlex
import time
from datetime import UTC, datetime

from libs.common.web.frame import Pages
from services.credentials.domain import Account, place


def install_words(pages: Pages) -> None:
    """Give the templates these as filters."""
    pages.filters.update(
        {"command": shlex.join, "place": place, "moment": moment, "expires": expires, "whom": whom}
    )


def moment(text: str) -> str:
    """An ISO 8601 time for people."""
    return f"{text[:19].replace('T', ' ')} UTC"


def expires(account: Account, now: float | None = None) -> str:
    """When it ends, for people. One that is renewed does not end for them."""
    if not account.expires_at:
        return "no end known"
    if account.refresh_at and account.state == "connected":
        return "renewed by itself"
    left = account.expires_at - (time.time() if now is None else now)
    when = datetime.fromtimestamp(account.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return when if left > 0 else f"expired {when}"


def whom(account: Account) -> str:
    """As whom somebody is connected."""
    return account.label or ("API key" if account.kind == "api_key" else "Connected account")
