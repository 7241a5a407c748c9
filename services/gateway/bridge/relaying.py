"""Exchanges that belong to another replica, which holds the session, over NATS.

The replica that the client is connected to (the front) sends the head of the request to the one that holds
the session (the owner), which then fetches the body and brings the answer, piece by piece:

    gateway.<owner>.exchanges   a `Head`; answered at once, empty
    gateway.<front>.pieces      what the owner has to say on an exchange, of the kind in the header `Kind`;
                                each is answered when it is dealt with, which is the back pressure
    gateway.<owner>.gone        the id of an exchange whose client went away

Either side notices within `SILENCE` seconds that the other died. Claims cross, verified; tokens never do.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from libs.common.bus import Bus
from libs.common.clock import elapsed
from libs.common.control.tables import Tables
from libs.common.ids import new_id
from libs.common.lifecycle import Tasks, cancel
from libs.common.tokens import Claims
from services.gateway.asgi import Gone, Message
from services.gateway.bridge.exchange import Exchange, Front
from services.gateway.connection import Header
from services.gateway.ticket import Caller

log = structlog.get_logger(__name__)

PIECE = 512 * 1024  # bytes; a NATS message has at most 1 MiB, unless configured otherwise
BEAT = 4.0  # seconds between two signs of life of the owner
SILENCE = 12.0
PATIENCE = 30.0  # seconds for a client to take a piece

_ID, _KIND, _GONE = "Exchange", "Kind", "Gone"
_CROSSING = (b"mcp-", b"last-event-id", b"accept")
_LOST = (nats.errors.Error, TimeoutError, OSError)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way to the replica that holds its session. Headers are Latin-1, sizes in bytes."""

    id: str
    front_replica: str
    method: str
    front: Front
    server: str
    claims: Claims
    address: str
    protocol: str
    session: str
    headers: list[tuple[str, str]]
    size: int


class _Start(msgspec.Struct, frozen=True):
    status: int
    headers: list[tuple[str, str]]


class Relaying:
    """Both roles of one replica."""

    def __init__(self, bus: Bus, tables: Tables, replica: Callable[[], str]) -> None:
        self._bus, self._tables, self._replica = bus, tables, replica
        self.serve: Callable[[Exchange], Awaitable[None]] | None = None  # answers what another replica brings
        self._fronted: dict[str, _Fronted] = {}
        self._owned: dict[str, _Owned] = {}
        self._tasks = Tasks()

    async def start(self) -> None:
        replica, client = self._replica(), self._bus.client
        await client.subscribe(f"gateway.{replica}.exchanges", cb=self._on_exchange)
        await client.subscribe(f"gateway.{replica}.pieces", cb=self._on_piece)
        await client.subscribe(f"gateway.{replica}.gone", cb=self._on_gone)

    async def stop(self) -> None:
        await self._tasks.cancel()

    # -- the front --------------------------------------------------------------------------------

    async def relay(self, exchange: Exchange, owner: str) -> bool:
        """Have `owner` answer; false if it cannot, so that the client should begin a new session."""
        if owner not in self._tables.replicas:
            return False
        fronted = _Fronted(exchange)
        self._fronted[fronted.id] = fronted
        head = fronted.head(self._replica())
        try:
            await self._bus.client.request(
                f"gateway.{owner}.exchanges", msgspec.json.encode(head), timeout=SILENCE
            )
            await exchange.while_there(fronted.over())
        except Gone:
            await self._bus.client.publish(f"gateway.{owner}.gone", fronted.id.encode())
        except _LOST as error:
            log.warning("owner_lost", replica=owner, error=repr(error))
            return exchange.started  # what has begun breaks off
        finally:
            del self._fronted[fronted.id]
        return True

    async def _on_piece(self, message: Msg) -> None:
        # In a task: a client that reads slowly holds up nobody else's pieces.
        self._tasks.spawn(self._take_piece(message))

    async def _take_piece(self, message: Msg) -> None:
        given = message.headers or {}
        fronted = self._fronted.get(given.get(_ID, ""))
        if fronted is None:
            await self._bus.client.publish(message.reply, b"", headers={_GONE: "1"})
            return
        await self._bus.client.publish(message.reply, await fronted.take(given.get(_KIND, ""), message.data))

    # -- the owner --------------------------------------------------------------------------------

    async def _on_exchange(self, message: Msg) -> None:
        head = msgspec.json.decode(message.data, type=Head)
        await self._bus.client.publish(message.reply, b"")
        self._tasks.spawn(self._answer(head))

    async def _answer(self, head: Head) -> None:
        owned = self._owned[head.id] = _Owned(self._bus, head)
        beating = asyncio.ensure_future(owned.beat())
        try:
            exchange = await owned.exchange()
            assert self.serve
            await self.serve(exchange)
            await owned.ask("over")
        except Gone:
            pass
        except Exception:
            log.exception("relayed_exchange_failed")
        finally:
            del self._owned[head.id]
            await cancel(beating)

    async def _on_gone(self, message: Msg) -> None:
        if owned := self._owned.get(message.data.decode()):
            owned.gone.set()


class _Fronted:
    """An exchange whose client is connected here."""

    def __init__(self, exchange: Exchange) -> None:
        self.id = new_id()
        self._exchange = exchange
        self._heard = elapsed()
        self._busy = 0  # pieces that the client has not taken yet
        self._over = asyncio.Event()

    def head(self, replica: str) -> Head:
        exchange, caller = self._exchange, self._exchange.caller
        return Head(
            id=self.id,
            front_replica=replica,
            method=exchange.method,
            front=exchange.front,
            server=exchange.server,
            claims=caller.claims,
            address=caller.address,
            protocol=caller.protocol,
            session=caller.session.decode("latin-1"),
            headers=_text([header for header in exchange.headers if header[0].startswith(_CROSSING)]),
            size=len(exchange.body),
        )

    async def over(self) -> None:
        """Wait for the end of the answer. Raises `TimeoutError` when the owner falls silent."""
        while not self._over.is_set():
            left = self._heard + SILENCE - elapsed()
            if left <= 0 and not self._busy:
                raise TimeoutError("the owner fell silent")
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    await self._over.wait()
            except TimeoutError:
                continue

    async def take(self, kind: str, data: bytes) -> bytes:
        """Deal with a piece. Returns what the owner gets for it."""
        self._heard = elapsed()
        exchange = self._exchange
        self._busy += 1
        try:
            if kind == "body":
                offset = int(data)
                return exchange.body[offset : offset + PIECE]
            if kind == "start":
                start = msgspec.json.decode(data, type=_Start)
                exchange.started = True
                head = {"type": "http.response.start", "status": start.status}
                await exchange.send(head | {"headers": _raw(start.headers)})
            elif kind in {"data", "end"}:
                body = {"type": "http.response.body", "body": data, "more_body": kind == "data"}
                await exchange.send(body)
            elif kind == "over":
                self._over.set()
        finally:
            self._busy -= 1
            self._heard = elapsed()
        return b""


class _Owned:
    """An exchange whose client is connected to another replica."""

    def __init__(self, bus: Bus, head: Head) -> None:
        self._bus, self._head = bus, head
        self.gone = asyncio.Event()

    async def exchange(self) -> Exchange:
        """With its body, fetched from the front. Raises `Gone`."""
        head, body = self._head, bytearray()
        while len(body) < head.size:
            piece = await self.ask("body", b"%d" % len(body))
            if not piece:
                raise Gone
            body += piece
        return Exchange(
            method=head.method,
            front=head.front,
            server=head.server,
            caller=Caller(head.claims, head.address, head.protocol, head.session.encode("latin-1")),
            headers=_raw(head.headers),
            body=bytes(body),
            send=self.send,
            gone=self._until_gone,
        )

    async def send(self, message: Message) -> None:
        """An ASGI `send`: what the client does not get any more is lost."""
        if message["type"] == "http.response.start":
            start = _Start(message["status"], _text(message["headers"]))
            await self._ask("start", msgspec.json.encode(start), PATIENCE)
            return
        body, last = message.get("body", b""), not message.get("more_body", False)
        for begin in range(0, max(len(body), 1), PIECE):
            piece = body[begin : begin + PIECE]
            kind = "end" if last and begin + PIECE >= len(body) else "data"
            await self._ask(kind, piece, PATIENCE)

    async def beat(self) -> None:
        """Tell the front that we live, and find out whether it does."""
        while not self.gone.is_set():
            await asyncio.sleep(BEAT)
            await self._ask("alive", b"", BEAT)

    async def ask(self, kind: str, data: bytes = b"") -> bytes:
        """Bring a piece to the front. Raises `Gone`."""
        answer = await self._ask(kind, data, PATIENCE)
        if answer is None:
            raise Gone
        return answer

    async def _ask(self, kind: str, data: bytes, timeout: float) -> bytes | None:
        if self.gone.is_set():
            return None
        subject, headers = f"gateway.{self._head.front_replica}.pieces", {_ID: self._head.id, _KIND: kind}
        try:
            answer = await self._bus.client.request(subject, data, timeout=timeout, headers=headers)
        except _LOST:
            self.gone.set()
            return None
        if answer.headers and _GONE in answer.headers:
            self.gone.set()
            return None
        return bytes(answer.data)

    async def _until_gone(self) -> None:
        await self.gone.wait()


def _text(headers: list[Header]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _raw(headers: list[tuple[str, str]]) -> list[Header]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
