"""The two kinds of connection to an upstream in the bridged lane. Messages are raw JSON, one JSON-RPC message
each, and pass unchanged but for their ids where several callers share a connection.

The protocol has two eras (MCP 2026-07-28, basic/versioning), and their connections differ in shape: up to
2025-11-25 a *session*, in which both sides send when they like; from 2026-07-28 on an *endpoint*, which gives
each request its own stream. `services.gateway.eras` makes either of the other.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

from services.gateway.connection import UpstreamFailed

Era: TypeAlias = Literal["legacy", "modern"]

# Called right before the first byte of a message leaves; raises `UpstreamFailed` to keep it from leaving.
Check: TypeAlias = Callable[[], None]
Emit: TypeAlias = Callable[[bytes], None]
OnClosed: TypeAlias = Callable[[UpstreamFailed], None]
# The request with this id (raw JSON) gets no answer any more, while the session goes on.
OnFailed: TypeAlias = Callable[[bytes, UpstreamFailed], None]


def always() -> None:
    """A `Check` for what Lockgate sends on its own behalf."""


class Session(Protocol):
    """A two-way pipe of messages, from `initialize` to its end (revisions 2024-11-05 to 2025-11-25).

    Made with three callbacks, none of which may block or raise. `on_message` is called for each message from
    the upstream, in the order of its stream. `on_closed` is called once if the upstream ends the session, not
    after `close`; every request that still waits is lost then. `on_failed` is called where the session goes
    on and one request does not: its own stream broke before the answer (Streamable HTTP only). An id is
    named once at the most, and never after its answer.
    """

    async def start(self) -> None:
        """Connect. Raises `UpstreamFailed`."""

    async def send(self, message: bytes, check: Check) -> None:
        """Send one message, and return when the upstream has accepted it; the answer comes by `on_message`.

        An upstream may accept a request only by answering it, so several may be sent at once, each in a task
        of its own. Cancelling ends the waiting and the message's stream; to cancel a request, send
        `notifications/cancelled`. Raises `UpstreamFailed`: then the message was not accepted, and no other
        word of it comes.
        """

    async def close(self) -> None:
        """End the session upstream too, as far as the transport can. May be called twice."""


class Endpoint(Protocol):
    """Answers requests one by one, without a session (revision 2026-07-28)."""

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        """The JSON-RPC response to `message`, with its id. Notifications on the way go to `emit`, in order.

        Cancelling the awaiting task cancels the request upstream. Raises `UpstreamFailed`.
        """

    async def notify(self, message: bytes, check: Check) -> None:
        """Send a notification. Raises `UpstreamFailed`."""

    async def close(self) -> None:
        """Let go of what it holds. Requests that run end with `UpstreamFailed`. May be called twice."""


class OpenSession(Protocol):
    """Makes a session with an upstream, not yet started."""

    def __call__(self, on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> Session: ...


class Reached(NamedTuple):
    """An upstream, and the era that it speaks: legacy gives `open`, modern gives `endpoint`.

    The endpoint may be shared with others: its `close` ends what was asked for here, not the upstream.
    """

    era: Era
    endpoint: Endpoint | None = None
    open: OpenSession | None = None
