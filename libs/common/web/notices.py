"""A notice that outlives one redirect: what was done, and where it holds. It travels in a cookie of its own,
so that any replica of the service can show it, and is shown once."""

import base64
import binascii
from typing import Literal, TypeAlias

import msgspec
from fastapi import Request
from starlette.responses import RedirectResponse, Response

from libs.common.control.owner import Receipt, ReplicaReceipt
from libs.common.settings import Settings

Mood: TypeAlias = Literal["good", "warn", "bad"]

_GRAVITY: tuple[Mood, ...] = ("good", "warn", "bad")
COOKIE = "lockgate_notice"
LIFETIME = 60  # seconds
# A cookie holds 4 kB:
LENGTH = 1000  # characters
REPLICAS = 12


class Notice(msgspec.Struct, frozen=True):
    """One or two sentences for the person who did something, and how it stands at the first replicas."""

    text: str
    mood: Mood = "good"
    replicas: tuple[ReplicaReceipt, ...] = ()

    def and_then(self, other: "Notice") -> "Notice":
        """Both, in the graver mood."""
        graver = max(self.mood, other.mood, key=_GRAVITY.index)
        return Notice(f"{self.text} {other.text}", graver, other.replicas or self.replicas)


def redirect(path: str, notice: Notice, settings: Settings) -> Response:
    """Lead to `path`, which shows `notice`."""
    response = RedirectResponse(path, 303)
    cut = msgspec.structs.replace(notice, text=notice.text[:LENGTH])
    value = base64.urlsafe_b64encode(msgspec.json.encode(cut)).decode()
    secure = settings.secure_cookies
    response.set_cookie(COOKIE, value, LIFETIME, httponly=True, samesite="strict", secure=secure)
    return response


def waiting(request: Request) -> Notice | None:
    """The notice that this request brings, if any. Answer with `shown`."""
    value = request.cookies.get(COOKIE)
    if not value:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(value), type=Notice)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


def shown(response: Response, request: Request) -> Response:
    """`response`, after which the notice is gone."""
    if COOKIE in request.cookies:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def after(done: str, receipt: Receipt) -> Notice:
    """Say that something was done, and where it holds."""
    mood: Mood = "good" if receipt.complete else "warn"
    return Notice(f"{done} {holds(receipt)}", mood, tuple(receipt.replicas[:REPLICAS]))


def holds(receipt: Receipt) -> str:
    """Where a change holds, in a sentence."""
    if not receipt.revision and not receipt.complete:
        return (
            "It is saved; the control log cannot be written now, so no gateway knows of it yet. "
            "It will follow by itself."
        )
    applied = [replica for replica in receipt.replicas if replica.state == "applied"]
    expired = [replica.replica for replica in receipt.replicas if replica.state == "lease_expired"]
    pending = [replica.replica for replica in receipt.replicas if replica.state == "pending"]
    sentences = []
    if applied:
        since = max(replica.at or "" for replica in applied)
        where = "1 replica" if len(applied) == 1 else f"{len(applied)} replicas"
        sentences.append(f"Holds on {where} since {since[:23].replace('T', ' ')} UTC.")
    if expired:
        sentences.append(f"{', '.join(expired)} does not answer and refuses calls until it has caught up.")
    if pending:
        sentences.append(f"Not yet confirmed by {', '.join(pending)}; it will follow by itself.")
    if not receipt.replicas and receipt.complete:
        sentences.append("No gateway replica is running; each applies it before its first call.")
    if not receipt.complete and not pending:
        sentences.append("Not yet confirmed by every replica; it will follow by itself.")
    return " ".join(sentences)
