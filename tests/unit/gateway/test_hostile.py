"""What a hostile member or a hostile upstream may try."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.common.control.entries import CredentialVersion, ServerAccess, origin_of
from libs.common.control.entries import Server as Entry
from libs.common.control.follower import SUBJECT
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.gateway import messages, passage
from services.gateway.aggregate import endpoint as aggregate_endpoint
from services.gateway.aggregate.changes import Changes
from services.gateway.aggregate.endpoint import Aggregate, Names, Surroundings
from services.gateway.bridge.conversations import ENDED, key_of
from services.gateway.bridge.http_front import HostedHttpSession
from services.gateway.bridge.streams import OVERHEAD, Stream
from services.gateway.capture import Capture
from services.gateway.connection import UpstreamFailed
from services.gateway.envelope import parse
from services.gateway.eras import inputs
from services.gateway.eras.calls import Call
from services.gateway.eras.hearing import EARLY_BYTES, Hearer
from services.gateway.eras.inquiries import OPEN_BYTES, Inquiries
from services.gateway.links.events import events
from services.gateway.links.handshake import FIRST_ID
from services.gateway.links.parameters import Parameters, mirrored
from services.gateway.links.port import Check, Emit, Endpoint, always
from services.gateway.links.spoken_eras import SpokenEras
from services.gateway.links.sse import SseSession
from services.gateway.lists import MOST_PARTS, Unfilterable, filter_lists
from services.gateway.messages import NotAMessage
from services.gateway.redaction import Redactor
from services.gateway.ticket import Caller
from services.gateway.upstream import UpstreamExchange
from tests.conftest import eventually
from tests.unit.gateway import raw_upstream
from tests.unit.gateway.bridge_made import ACCESS, Behind, ByHand, behind, by_hand
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House, token
from tests.unit.gateway.links_made import Talk, event, modern, request, response, route_to, scripted
from tests.unit.gateway.stdio_made import World, world
from tests.unit.gateway.stdio_made import by_hand as program
from tests.unit.gateway.test_links_sse import Stream as SseStream
from tests.unit.gateway.test_links_sse import talking

DEEP = b"[" * 3000 + b"]" * 3000
UNREADABLE = [b'{"jsonrpc":"2.0","method":"\xff"}', b'{"jsonrpc":"2.0","id":"\xff","result":"\xff"', DEEP]
# What is no id, each raising another exception in somebody's decoder or hash table.
NO_IDS = [b"[1]", b"{}", b"null", b'"\xff"', b"9" * 5000, DEEP]


@pytest.fixture
async def server(house: House) -> AsyncIterator[Behind]:
    async with behind(house, "sse") as server:
        yield server


@pytest.fixture
async def client(server: Behind) -> AsyncIterator[ByHand]:
    async with by_hand(server) as client:
        await client.begin()
        yield client


class TestIdsAndTokens:
    """Whatever stands where an id should."""

    @pytest.mark.parametrize("id", NO_IDS)
    def test_what_is_no_id_is_nobodys(self, id: bytes) -> None:
        assert key_of(id) is None

    @pytest.mark.parametrize("id", [[1], {}, None, 1.5, True])
    async def test_a_client_cancels_what_is_no_request(self, client: ByHand, id: Any) -> None:
        assert (await client.notify("notifications/cancelled", {"requestId": id})).status_code == 202
        assert (await client.call("echo", {"text": "on"}, id=9)).status_code == 200

    @pytest.mark.parametrize("progress", [[1], {"a": []}, None])
    async def test_a_client_gives_a_strange_progress_token(self, client: ByHand, progress: Any) -> None:
        params = {"name": "echo", "arguments": {"text": "x"}, "_meta": {"progressToken": progress}}
        await client.request("tools/call", params, id=5)  # the upstream refuses it
        again = await client.call("echo", {"text": "x"}, id=5)
        assert again.status_code == 200, "the id is free again"

    @pytest.mark.parametrize("last", ["0-²", "²-1", "0-", "-", "0-99999999999"])
    async def test_a_client_goes_on_after_an_event_that_never_was(self, client: ByHand, last: str) -> None:
        headers = client.headers | client.session | {"last-event-id": last.encode("latin-1")}
        answer = await client.http.get(client.url, headers=headers)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (400, "event_unknown")

    @pytest.mark.parametrize("session", ["%FF", "%00", "a%0d%0ab", "%F0%9F", "&sessionId=x", "bridged.x.y.z"])
    async def test_a_client_names_a_session_that_is_no_text(self, server: Behind, session: str) -> None:
        async with by_hand(server) as client:
            url = f"{server.url}/sse?sessionId={session}"
            headers = client.headers | {"content-type": "application/json"}
            body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
            answer = await client.http.post(url, content=body, headers=headers)
            assert answer.status_code in {404, 405}


class TestWhatCannotBeRead:
    """An upstream sends what decoders stumble over."""

    @pytest.mark.parametrize("raw", [*UNREADABLE, b'{"\xff":1}'])
    def test_it_is_no_message(self, raw: bytes) -> None:
        with pytest.raises(NotAMessage):
            messages.members(messages.read(raw).params or raw)

    @pytest.mark.parametrize("bad", UNREADABLE)
    async def test_a_session_over_sse_ends_and_nobody_waits_for_ever(self, bad: bytes) -> None:
        stream = SseStream()
        async with talking(stream) as (talk, _):
            await stream.send(event(bad))
            await eventually(lambda: talk.closed)

    @pytest.mark.parametrize("address", [b"//[", b"http://[::1", b"//h:99999/", b"http://\xff/", b"/a\x00b"])
    async def test_an_endpoint_that_is_no_address_fails_at_once(self, address: bytes) -> None:
        first = b"event: endpoint\ndata: " + address + b"\n\n"
        async with asyncio.timeout(5):
            with pytest.raises(UpstreamFailed, match=r"address|origin"):
                async with talking(SseStream(first)):
                    pass

    async def test_a_callback_that_fails_ends_the_session(self) -> None:
        closed: list[UpstreamFailed] = []

        def failing(_: bytes) -> None:
            raise TypeError("unhashable")

        stream = SseStream()
        async with scripted(stream) as upstream, route_to(upstream.url) as route:
            session = SseSession(route, failing, closed.append, lambda *_: None)
            await session.start()
            await stream.send(event(response(1, {})))
            await eventually(lambda: closed)
            await session.close()

    @pytest.mark.parametrize("id", NO_IDS)
    async def test_answers_with_strange_ids_do_no_harm(self, house: House, id: bytes) -> None:
        async def script(exchange: Exchange) -> None:
            if exchange.method != "POST" or "id" not in exchange.message:
                await exchange.answer(b"", 202 if exchange.method == "POST" else 405)
            elif exchange.message["method"] == "initialize":
                await exchange.result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
            else:
                await exchange.open_stream()
                await exchange.event(event(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % id))
                strange = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b}}'
                await exchange.event(event(strange % id))
                await exchange.event(event(response(exchange.message["id"], {"content": []})), last=True)

        async with raw_legacy(house, script) as client:
            await client.begin()
            answer = await client.call("t", id=3)
            assert answer.status_code in {200, 502}
        assert {record["method"] for record in house.records()} >= {"tools/call"}
        assert all(record["reason"] != "interrupted" for record in house.records())

    @pytest.mark.parametrize("error", [b'{"code":1,"message":"\xff"}', b'{"code":1,"message":%b}' % DEEP])
    async def test_the_record_of_an_unreadable_error_is_written(self, house: House, error: bytes) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.answer(b'{"jsonrpc":"2.0","id":1,"error":%b}' % error)

        house.upstream.script = script
        assert (await house.call()).status_code == 200
        assert (await house.record())["status"] in {"ok", "error"}

    @pytest.mark.parametrize("result", [b'{"isError":%b}' % DEEP, b'{"isError":"\xff"}', b'{"\xff":1}'])
    def test_a_result_that_cannot_be_read_is_captured_as_it_is(self, result: bytes) -> None:
        capture = Capture(b"1", 100, sse=False)
        capture.feed(b'{"id":1,"result":%b}' % result)
        assert capture.end().output.size


class TestIdsGivenUp:
    """A late answer to a request that was given up is not that to another one with its id."""

    async def test_a_list_is_not_shown_unfiltered_as_the_answer_to_a_ping(self, house: House) -> None:
        late = asyncio.Event()
        tools = [{"name": "located", "inputSchema": {}}, {"name": "echo", "inputSchema": {}}]

        async def script(exchange: Exchange) -> None:
            if exchange.method != "POST" or "id" not in exchange.message:
                await exchange.answer(b"", 202 if exchange.method == "POST" else 405)
            elif exchange.message["method"] == "initialize":
                await exchange.result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
            elif exchange.message["method"] == "tools/list":
                await exchange.open_stream()
                await exchange.event(b": hello\n\n")
                await late.wait()
                await exchange.event(event(response(7, {"tools": tools})), last=True)
            else:
                late.set()
                await asyncio.sleep(0.3)
                await exchange.result({})

        async with raw_legacy(house, script) as client:
            await client.begin()
            listing = asyncio.create_task(client.request("tools/list", id=7))
            await eventually(lambda: any(b"tools/list" in exchange.body for exchange in house.upstream.seen))
            await client.notify("notifications/cancelled", {"requestId": 7})
            ping = await client.request("ping", id=7)
            await listing
            assert "located" not in ping.text
            assert ping.json()["error"]["data"]["reason"] == "id_in_use"
            late.set()
            await eventually(lambda: not _only_conversation(house)._given_up)
            assert (await client.request("ping", id=7)).json()["result"] == {}


class TestTheEndOfASession:
    async def test_a_notification_that_was_on_its_way_fails_in_an_orderly_manner(
        self, client: ByHand, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reached, gate, admit = asyncio.Event(), asyncio.Event(), house.gateway.journal.admit

        async def slowly(record: Any) -> None:
            await admit(record)
            reached.set()
            await gate.wait()

        monkeypatch.setattr(house.gateway.journal, "admit", slowly)
        telling = asyncio.create_task(client.notify("notifications/roots/list_changed"))
        async with asyncio.timeout(10):
            await reached.wait()
        host = house.gateway.bridge.gate.host
        await host.end(host.register.all()[0], ENDED)
        gate.set()
        answer = await telling
        assert answer.status_code == 502
        assert answer.json()["error"]["data"]["reason"] == "cancelled"


class TestMoved:
    """What was decided before a change does not leave after it to where it may not go any more."""

    async def test_a_call_that_waited_is_not_sent_to_the_old_address(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calling = await _held_before_sending(house, monkeypatch)
        await house.put(Entry(version=2, slug="demo", name="Demo", url=house.upstream.url + "/moved"))
        answer = await calling.go_on()
        assert answer.status_code == 502 and not house.upstream.seen
        assert (await house.record())["reason"] == "upstream_broke_off"

    async def test_nor_with_a_credential_that_is_not_the_callers_any_more(
        self, house: House, vault: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin = origin_of(house.upstream.url)
        await house.put(CredentialVersion(version=1, slug="keyed", user="alice", origin=origin))
        calling = await _held_before_sending(house, monkeypatch, "keyed")
        await house.bus.js.publish(SUBJECT + "credential.keyed.alice", b"", headers={"KV-Operation": "DEL"})
        await eventually(lambda: "keyed.alice" not in house.gateway.follower.tables.credentials)
        answer = await calling.go_on()
        assert answer.status_code == 502 and not house.upstream.seen

    async def test_a_bridged_call_that_waited_does_not_even_open_a_session(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await house.put(
            Entry(version=2, slug="demo", name="Demo", url=house.upstream.url, bridge="always"),
        )
        house.gateway.eras.forget("demo", house.upstream.url)
        house.gateway.eras.saw("demo", house.upstream.url, {"modern": False, "legacy": True})
        calling = await _held_before_sending(house, monkeypatch, modern=True)
        moved = Entry(version=3, slug="demo", name="Demo", url=house.upstream.url + "/moved", bridge="always")
        await house.put(moved)
        assert (await calling.go_on()).status_code == 502
        assert not house.upstream.seen

    async def test_a_stream_from_the_old_address_ends(self, house: House) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.open_stream()
            await exchange.event(b": hello\n\n")
            await exchange.until_gone()

        house.upstream.script = script
        headers = {"authorization": f"Bearer {token()}", "accept": "text/event-stream"}
        async with house.client.stream("GET", f"{house.url}/mcp/demo", headers=headers) as stream:
            assert stream.status_code == 200
            await house.put(Entry(version=2, slug="demo", name="Demo", url=house.upstream.url + "/moved"))
            await eventually(house.upstream.seen[0].gone.is_set)


class TestWithoutALease:
    """A replica that cannot tell what is forbidden asks upstreams for nothing, on nobody's request either."""

    async def test_a_stream_that_breaks_is_not_opened_again(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gets = 0

        async def script(exchange: Exchange) -> None:
            nonlocal gets
            if exchange.method == "GET":
                gets += 1
                await exchange.open_stream()
                note = event(messages.notification("notifications/tools/list_changed"))
                await exchange.event(b"retry: 100\n" + note, last=True)
            elif "id" not in exchange.message:
                await exchange.answer(b"", 202)
            else:
                await exchange.result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})

        async with raw_legacy(house, script) as client:
            await client.begin()
            await eventually(lambda: gets > 2)
            monkeypatch.setattr(type(house.gateway), "fresh", property(lambda _: False))
            await asyncio.sleep(0.1)  # one may be on its way
            before = gets
            await asyncio.sleep(0.5)
            assert gets == before
            monkeypatch.undo()
            await eventually(lambda: gets > before)


class TestMemory:
    """What waits for somebody is bounded in bytes."""

    def test_answers_for_clients_that_may_come_back_are_bounded_together(self) -> None:
        session = HostedHttpSession(b"s", Caller(None), backlog=100_000)  # type: ignore[arg-type]
        for id in range(20):
            session.stream_for(parse(request(id, "ping")))
            session.answer(id, response(id, "x" * 60_000))
        assert sum(stream.size for stream in session._streams.values()) < 200_000
        assert len(session._streams) == 2, "the newest can still be resumed"

    def test_tiny_messages_count_for_what_they_cost(self) -> None:
        stream = Stream("1", backlog=100 * (OVERHEAD + 2))
        for _ in range(101):
            stream.put(b"{}")
        assert stream.overflown

    def test_notifications_before_the_acknowledgement_are_bounded(self) -> None:
        heard: list[bytes] = []
        hearer = Hearer(b"1", heard.append)
        for number in range(50):
            params = {"uri": str(number), "pad": "x" * 100_000}
            hearer.tell(messages.notification("notifications/resources/updated", params))
        hearer.acknowledge()
        assert sum(map(len, heard)) < EARLY_BYTES + 1000

    def test_questions_that_are_withdrawn_again_are_not_kept(self) -> None:
        said: list[bytes] = []
        inquiries = Inquiries(b'{"sampling":{}}', said.append)
        call = Call(b"1", "tools/call", None, lambda: None)
        inquiries.attend(call)
        for number in range(500):
            inquiries.take(messages.read(request(number, "sampling/createMessage", messages=[])))
            inquiries.withdraw(b"%d" % number)
        assert len(call._questions) <= 1

    def test_open_questions_are_bounded_in_bytes(self) -> None:
        said: list[bytes] = []
        inquiries = Inquiries(b'{"sampling":{}}', said.append)
        call = Call(b"1", "tools/call", None, lambda: None)
        inquiries.attend(call)
        huge = messages.read(request(1, "sampling/createMessage", pad="x" * (OPEN_BYTES // 4)))
        for _ in range(10):
            inquiries.take(huge)
        assert len(call.questions) == 3 and len(said) == 7

    async def test_an_endless_list_costs_its_server_its_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aggregate_endpoint, "BYTES", 50_000)

        class Endless(Endpoint):
            pages = 0

            async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
                self.pages += 1
                tools = [{"name": f"t{self.pages}", "description": "x" * 10_000}]
                return messages.result(messages.read(message).id, {"tools": tools, "nextCursor": "on"})

            async def notify(self, message: bytes, check: Check) -> None: ...

            async def close(self) -> None: ...

        endless = Endless()
        around = Surroundings(lambda: ["a"], lambda _: endless, lambda _: [], Names(), Changes(), 5.0)
        answer = json.loads(await Aggregate(around).request(request(1, "tools/list"), lambda _: None, always))
        assert answer["result"]["tools"] == [] and endless.pages == 5

    def test_names_that_nobody_may_call_are_not_remembered(self) -> None:
        names, parameters = Names(), Parameters()
        for number in range(10):
            name = "x" * 100_000 + str(number)
            names.learn("a", [name])
            parameters.learn(json.dumps({"tools": [{"name": name, "inputSchema": {}}]}).encode())
        assert not names._places and not parameters._known

    @pytest.mark.parametrize(
        "properties",
        [
            {f"p{n}": {"type": "string", "x-mcp-header": f"h{n}"} for n in range(1000)},
            {"p": {"type": "string", "x-mcp-header": "h" * 10_000}},
            {"p" * 10_000: {"type": "string", "x-mcp-header": "h"}},
        ],
    )
    def test_marks_of_parameters_are_bounded(self, properties: Any) -> None:
        assert mirrored(json.dumps({"properties": properties}).encode()) == {}

    async def test_half_sent_requests_of_one_person_are_limited(self, house: House) -> None:
        head = (
            f"POST /mcp/demo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
            "content-type: application/json\r\ncontent-length: 60000\r\n\r\n"
        ).encode()
        port = int(house.url.rpartition(":")[2])
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]  # 4 are allowed
        try:
            for _, writer in opened:
                writer.write(head + b"x" * 30_000)
            async with asyncio.timeout(10):
                answers = [asyncio.create_task(reader.readline()) for reader, _ in opened]
                await eventually(lambda: sum(task.done() for task in answers) == 2)
            assert {task.result() for task in answers if task.done()} == {
                b"HTTP/1.1 429 Too Many Requests\r\n"
            }
        finally:
            for task in answers:
                task.cancel()
            for _, writer in opened:
                writer.close()
        record = await house.record(2)
        assert record["reason"] == "too_many_calls"

    async def test_a_body_that_stops_coming_is_given_up(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(passage, "PIECE_WITHIN", 0.05)
        port = int(house.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /mcp/demo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
        head += "content-length: 9\r\n\r\n{"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            assert b"408" in await reader.readline()
        writer.close()
        assert (await house.record())["reason"] == "body_too_slow"


class TestTime:
    """What one upstream sends does not keep the event loop from everybody else."""

    def test_a_list_of_too_many_parts_is_not_read(self) -> None:
        huge = b'{"id":1,"result":{"tools":[],"pad":[%b0]}}' % (b"0," * (MOST_PARTS + 1))
        with pytest.raises(Unfilterable, match="parts"):
            filter_lists(huge, lambda *_: True)

    async def test_an_answer_in_single_bytes_is_read_in_few_pieces(self) -> None:
        body = b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body
        async with raw_upstream.upstream(raw_upstream.saying(answer)) as pool:
            exchange = UpstreamExchange(pool)
            found = await raw_upstream.begin(exchange)
            pieces = [piece async for piece in found.chunks()]
            exchange.release()
        assert b"".join(pieces) == b"a" * 5000
        assert len(pieces) < 100

    async def test_a_flood_of_events_leaves_everybody_a_turn(self) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.open_stream()
            await exchange.event(b":\n\n" * 20_000, last=True)

        async with scripted(script) as upstream, route_to(upstream.url) as route:
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            async with route.answer(b"GET", []) as answer:
                await asyncio.sleep(0.2)  # all of it has come
                task = asyncio.create_task(others())
                count = len([found async for found in events(answer, 100_000)])
                task.cancel()
        assert count == 20_000 and turns > 50


class TestRedaction:
    """An upstream repeats the credential as its JSON writer, or its way of saying no, has it."""

    KEY = "q+7/Zk<x>&'s3cret=="

    @pytest.mark.parametrize(
        "written",
        [
            KEY.replace("/", "\\/"),
            "q\\u002B7/Zk\\u003Cx\\u003E\\u0026\\u0027s3cret==",
            "q+7/Zk\\u003cx\\u003e\\u0026's3cret==",
            "q%2B7%2FZk%3Cx%3E%26%27s3cret%3D%3D",
        ],
    )
    def test_in_the_spelling_of_php_dotnet_go_and_urls(self, written: str) -> None:
        redactor = Redactor([(b"authorization", b"Bearer " + self.KEY.encode())])
        assert redactor.whole(f'{{"error":"no {written}"}}'.encode()) == (
            b'{"error":"no ' + b"*" * len(written) + b'"}'
        )

    def test_in_json_that_is_a_text_in_json_as_results_of_tools_have_it(self) -> None:
        key = 'pass"word\\/<1234>'
        redactor = Redactor([(b"x-password", key.encode())])
        result = json.dumps({"content": [{"type": "text", "text": json.dumps({"told": key})}]})
        shown = json.loads(redactor.whole(result.encode()))["content"][0]["text"]
        assert set(json.loads(shown)["told"]) == {"*"}

    def test_what_basic_authentication_holds(self) -> None:
        word = base64.b64encode(b"lockgate:hunter2-hunter2")
        redactor = Redactor([(b"authorization", b"Basic " + word)])
        assert redactor.whole(b"wrong password hunter2-hunter2 of lockgate") == (
            b"wrong password *************** of lockgate"
        )

    async def test_wherever_the_stream_is_cut(self) -> None:
        key = b"eeeyeeyJabc"
        redactor = Redactor([(b"authorization", b"Bearer " + key)])
        text = b"eeeye Beeeyeey Bearer eeeyeeyJabceee eeeyeeyJabc"

        async def cut(at: int) -> bytes:
            async def chunks() -> AsyncIterator[bytes]:
                for start in range(0, len(text), at):
                    yield text[start : start + at]

            return b"".join([chunk async for chunk in redactor.stream(chunks())])

        for at in range(1, len(text)):
            assert await cut(at) == redactor.whole(text)


class TestCredentials:
    """Who stores a credential decides its value, and nothing else of a request."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Api-Key": "k\r\n\r\nPOST /mcp HTTP/1.1\r\n"},
            {"X-Api-Key": "k\nx-admin: 1"},
            {"X-Api-Key": "k\0"},
            {"X-Api-Key\r\nx": "k"},
            {"X-Api-Key": "\u20ac"},
        ],
    )
    async def test_what_is_no_header_is_not_sent(self, house: House, headers: dict[str, str]) -> None:
        async def open_credential(query: OpenCredential) -> SealedCredential:
            secret = msgspec.json.encode(Injection(headers=headers))
            box = seal(secret, query.public_key, credential_context(query.slug, query.user, 1))
            return SealedCredential(version=1, box=box)

        await house.bus.serve(OPEN_CREDENTIAL, OpenCredential, open_credential)
        await house.bus.client.flush()
        await house.store_credential()
        answer = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
        assert answer.json()["error"]["data"]["reason"] == "credential_unavailable"
        assert not house.upstream.seen


class TestQuestions:
    def test_a_question_cannot_pass_for_an_answer(self) -> None:
        forged = b'{"method":"roots/list","id":5,"jsonrpc":"1.0","result":{"content":[]},"error":{},"x":1}'
        asked = json.loads(inputs.legacy_question(b'"lockgate-1"', forged, ""))
        assert asked == {"jsonrpc": "2.0", "id": "lockgate-1", "method": "roots/list", "x": 1}


class TestEras:
    """Nobody can make others speak an older era with an upstream than it does."""

    def test_refusals_that_somebody_provoked_prove_nothing(self) -> None:
        eras = SpokenEras()
        saw = eras.watcher("demo", "http://x/mcp")
        eras.saw("demo", "http://x/mcp", {"modern": True, "legacy": True})
        for _ in range(2):  # a request that the upstream does not understand
            saw("modern", "tools/call", 400, b"")
        saw("legacy", "initialize", 200, response(1, {"protocolVersion": "2025-11-25"}))
        assert eras.known("demo", "http://x/mcp") is None, "it is asked"
        assert eras.speaks("demo", "http://x/mcp", "modern") is None


class TestSharedProcesses:
    """A process knows one client: whose a task is, it cannot tell."""

    async def test_nobody_gets_at_the_task_of_somebody_else(self, tmp_path: Path) -> None:
        async with world(tmp_path) as at:
            at.put(program())
            alice, bob, other = [await _talk(at, user) for user in ("alice", "bob", "alice")]
            await alice.say(request(5, "tools/call", name="x", task="t1"))
            await alice.answer(5)
            for number, method in enumerate(("tasks/get", "tasks/result", "tasks/cancel"), 10):
                await bob.say(request(number, method, taskId="t1"))
                assert "no such task" in (await bob.answer(number))["error"]["message"]
                await bob.say(request(number + 10, method, taskId="of before"))
                assert "no such task" in (await bob.answer(number + 10))["error"]["message"]
                await other.say(request(number, method, taskId="t1"))  # the process does not know the method
                assert "no such task" not in (await other.answer(number))["error"]["message"]

    async def test_nor_in_the_modern_era(self, tmp_path: Path) -> None:
        async with world(tmp_path) as at:
            at.put(program("modern"))
            alice, bob, other = [
                (await at.reach(user, "modern")).endpoint for user in ("alice", "bob", "alice")
            ]
            assert alice and bob and other
            call = modern(1, "tools/call", name="x", task="t1")
            await alice.request(call, lambda _: None, always)
            named = modern(2, "tasks/cancel", taskId="t1")
            assert b"no such task" in await bob.request(named, lambda _: None, always)
            assert b"no such task" not in await other.request(named, lambda _: None, always)

    async def test_a_result_that_is_no_object_is_an_answer_too(self, tmp_path: Path) -> None:
        async with world(tmp_path) as at:
            at.put(program())
            alice = await _talk(at, "alice")
            await alice.say(request(5, "hold"))
            await alice.say(request(6, "tell", messages=[{"id": FIRST_ID, "result": 5}]))
            assert (await alice.answer(5))["result"] == 5


async def _talk(at: World, user: str) -> Talk:
    reached = await at.reach(user)
    assert reached.open
    talk = Talk().open(reached.open)
    await talk.begin()
    return talk


def _only_conversation(house: House) -> Any:
    [session] = house.gateway.bridge.gate.host.register.all()
    return session.conversation


class _Held:
    """A call that is admitted, and stands right before it is sent."""

    def __init__(self, answer: "asyncio.Task[Any]", gate: asyncio.Event) -> None:
        self._answer, self._gate = answer, gate

    async def go_on(self) -> Any:
        self._gate.set()
        async with asyncio.timeout(10):
            return await self._answer


async def _held_before_sending(
    house: House, monkeypatch: pytest.MonkeyPatch, server: str = "demo", *, modern: bool = False
) -> _Held:
    reached, gate = asyncio.Event(), asyncio.Event()
    admit = house.gateway.journal.admit

    async def slowly(record: Any) -> None:
        await admit(record)
        reached.set()
        await gate.wait()

    monkeypatch.setattr(house.gateway.journal, "admit", slowly)
    bearer = token(audience=f"{PUBLIC_URL}/mcp/{server}")
    params: dict[str, Any] = {"name": "echo", "arguments": {}}
    headers = {}
    if modern:
        prefix = "io.modelcontextprotocol/"
        params["_meta"] = {prefix + "protocolVersion": "2026-07-28", prefix + "clientCapabilities": {}}
        headers = {"mcp_method": "tools/call", "mcp_name": "echo", "mcp_protocol_version": "2026-07-28"}
    body = house.message("tools/call", params)
    answer = asyncio.create_task(house.post(body, bearer, server, **headers))
    async with asyncio.timeout(10):
        await reached.wait()
    return _Held(answer, gate)


@asynccontextmanager
async def raw_legacy(house: House, script: Any) -> AsyncIterator[ByHand]:
    """A client of a legacy upstream over Streamable HTTP that does what `script` says."""
    house.upstream.script = script
    entry = Entry(version=1, slug="raw", name="Raw", url=house.upstream.url, bridge="always")
    await house.put(entry)
    house.gateway.eras.forget("raw", entry.url)
    house.gateway.eras.saw("raw", entry.url, {"modern": False, "legacy": True})
    found = Behind(house, entry, None)  # type: ignore[arg-type]
    await found.allow(ServerAccess(default="allow", tools=ACCESS.tools))
    async with by_hand(found) as client:
        yield client
