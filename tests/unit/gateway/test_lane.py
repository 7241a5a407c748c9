"""The transparent lane: what crosses it, what does not, and what is recorded. Real sockets on both sides."""

import asyncio
import json
import os
from collections.abc import Callable

import pytest
from joserfc.jwk import ECKey

from libs.common.control.entries import (
    AnyEntry,
    CredentialVersion,
    Group,
    Org,
    Revoked,
    Server,
    ServerAccess,
    User,
    origin_of,
)
from libs.common.requests import OpenCredential
from services.gateway.upstream import Connection, Pool
from tests.conftest import eventually
from tests.unit.gateway.conftest import KEY, PUBLIC_URL, Exchange, House, token


async def test_a_call_is_forwarded_byte_for_byte_and_recorded(house: House) -> None:
    big = 2**70
    params = b'"params":{"name":"echo","arguments":{"n":%d},"later":1}' % big
    body = b'{ "jsonrpc":"2.0", "id":"x", "method":"tools/call",\n ' + params + b"}"
    answer = b'{"jsonrpc":"2.0","id":"x","result":{"content":[],"n":%d,"unknown":{"kept":true}}}' % big

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer, x_custom="kept")

    house.upstream.script = script
    response = await house.post(body)

    assert (response.status_code, response.content) == (200, answer)
    assert response.headers["x-custom"] == "kept"
    assert house.upstream.seen[0].body == body
    record = await house.record()
    assert (record["status"], record["reason"], record["tool"]) == ("ok", "allowed", "echo")
    assert (record["user"], record["email"], record["client_name"]) == (
        "alice",
        "alice@x.example",
        "Test client",
    )
    assert json.loads(record["input"])["arguments"] == {"n": big}
    assert json.loads(record["output"])["n"] == big
    assert record["revision"] > 0
    assert record["duration_us"] >= record["first_byte_us"] > 0


async def test_the_upstream_never_sees_the_callers_token_cookie_or_origin(house: House) -> None:
    bearer = token()
    await house.call(bearer=bearer, cookie="lockgate=abc", origin=PUBLIC_URL, x_forwarded_for="1.2.3.4")
    (seen,) = house.upstream.seen
    assert bearer not in str(seen.headers)
    assert not {"authorization", "cookie", "origin", "x-forwarded-for"} & set(seen.headers)


async def test_the_caller_never_sees_the_upstreams_cookies_or_challenges(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(
            {}, set_cookie="a=b", www_authenticate="Bearer", access_control_allow_origin="*"
        )

    house.upstream.script = script
    response = await house.call()
    assert not {"set-cookie", "www-authenticate", "access-control-allow-origin"} & set(response.headers)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_without_a_token_every_method_is_challenged(house: House, method: str) -> None:
    response = await house.client.request(method, f"{house.url}/mcp/demo")
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert f'resource_metadata="{PUBLIC_URL}/.well-known/oauth-protected-resource/mcp/demo"' in challenge
    assert not house.upstream.seen
    assert not house.records()


async def test_the_metadata_names_the_resource_and_its_authorization_server(house: House) -> None:
    response = await house.client.get(f"{house.url}/.well-known/oauth-protected-resource/mcp/demo")
    document = response.json()
    assert document["resource"] == f"{PUBLIC_URL}/mcp/demo"
    assert document["authorization_servers"] == [PUBLIC_URL]


STRANGER = ECKey.generate_key("P-256", auto_kid=True)
IMPOSTOR = ECKey.generate_key("P-256", parameters={"kid": str(KEY.kid)})

BAD_TOKENS: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: token(exp=1), "token_expired"),
    "for another server": (lambda: token(audience=f"{PUBLIC_URL}/mcp/other"), "token_wrong_audience"),
    "for the api": (lambda: token(audience=f"{PUBLIC_URL}/api"), "token_wrong_audience"),
    "from another issuer": (lambda: token(iss="https://evil.example"), "token_wrong_issuer"),
    "signed by a stranger": (lambda: token(key=STRANGER), "token_unknown_key"),
    "signed by a stranger with our key id": (lambda: token(key=IMPOSTOR), "token_malformed"),
    "of the console": (lambda: token(typ="console+jwt"), "token_malformed"),
    "no token at all": (lambda: "garbage", "token_malformed"),
    "of nobody": (lambda: token(user="mallory"), "user_unknown"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_token_that_does_not_hold_is_refused_and_recorded(house: House, name: str) -> None:
    make, reason = BAD_TOKENS[name]
    response = await house.call(bearer=make())
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert not house.upstream.seen
    record = await house.record()
    assert (record["event"], record["outcome"], record["reason"]) == ("token_refused", "refused", reason)


async def test_a_token_for_the_gateway_as_a_whole_serves_every_server(house: House) -> None:
    assert (await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp"))).status_code == 200


async def test_nobody_can_fill_the_journal_with_refused_tokens(house: House) -> None:
    for _ in range(60):
        await house.call(bearer="garbage")
    assert len(house.records()) == 30


async def test_an_unknown_server_and_one_that_the_user_may_not_know_are_the_same(house: House) -> None:
    gateway_wide = token(audience=f"{PUBLIC_URL}/mcp")
    answers = [await house.call(bearer=gateway_wide, server=server) for server in ("nothing", "secret")]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [
        answer.text.replace(server, "X")
        for answer, server in zip(answers, ("nothing", "secret"), strict=True)
    ]
    assert bodies[0] == bodies[1]
    assert answers[0].json()["error"]["code"] == -31404
    assert not house.upstream.seen
    await house.record(2)
    assert [r["reason"] for r in house.records()] == ["server_unknown", "server_not_allowed"]


MALFORMED = {
    "not JSON": (b"{nope", 400, -32700, "malformed_json"),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', 400, -32700, "malformed_json"),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', 400, -32700, "malformed_json"),
    "too deep": (b"[" * 30_000 + b"]" * 30_000, 400, -32700, "malformed_json"),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600, "batch"),
    "a number": (b"1", 400, -32600, "invalid_request"),
    "no version": (b'{"id":1,"method":"ping"}', 400, -32600, "invalid_request"),
    "a null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600, "invalid_request"),
    "no name": (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}', 400, -32602, "invalid_params"),
    "params as a list": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}',
        400,
        -32602,
        "invalid_params",
    ),
    "a name twice": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"forbidden"}}',
        400,
        -32600,
        "duplicate_key",
    ),
    "a name twice, once in disguise": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","n\\u0061me":"forbidden"}}',
        400,
        -32600,
        "duplicate_key",
    ),
    "a name in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"forbidden"}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "params in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"Params":{"name":"forbidden"}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "a method in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"forbidden"}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "a name too long to be one": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s"}}' % (b"x" * 300),
        400,
        -32602,
        "invalid_params",
    ),
    "a method too long to be one": (
        b'{"jsonrpc":"2.0","id":1,"method":"%s"}' % (b"x" * 300),
        400,
        -32600,
        "invalid_request",
    ),
    "over the limit": (b" " * 70_000, 413, -32600, "body_too_large"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_single_message_is_refused_and_recorded(house: House, name: str) -> None:
    body, status, code, reason = MALFORMED[name]
    response = await house.post(body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["data"]["reason"] == reason
    assert not house.upstream.seen
    record = await house.record()
    assert (record["status"], record["reason"], record["email"]) == ("denied", reason, "alice@x.example")


async def test_headers_that_contradict_the_body_are_refused(house: House) -> None:
    response = await house.call("echo", mcp_method="tools/call", mcp_name="forbidden")
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
    assert (await house.record())["reason"] == "header_mismatch"
    modern = house.message("tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})
    response = await house.post(modern)
    assert response.json()["error"]["code"] == -32020
    assert not house.upstream.seen
    encoded = await house.call("échö", mcp_method="tools/call", mcp_name="=?base64?w6ljaMO2?=")
    assert encoded.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"content-type": "application/json; charset=utf-7"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
    ],
    ids=lambda header: next(iter(header.values())),
)
async def test_a_body_that_could_be_read_otherwise_is_refused(house: House, header: dict[str, str]) -> None:
    response = await house.call(**{name.replace("-", "_"): value for name, value in header.items()})
    assert response.status_code == 415
    assert (await house.record())["reason"] == "content_type"
    assert not house.upstream.seen


async def test_the_upstream_is_told_what_the_body_is_by_us(house: House) -> None:
    await house.call(content_type="application/json; charset=UTF-8", content_language="x", x_api_key_="1")
    (seen,) = house.upstream.seen
    assert seen.headers["content-type"] == "application/json"
    assert "content-language" not in seen.headers


async def test_headers_that_some_servers_take_for_others_are_not_passed_on(house: House) -> None:
    headers = {"authorization": f"Bearer {token()}", "X_Api_Key": "mine", "X-HTTP-Method-Override": "DELETE"}
    headers["content-type"] = "application/json"
    body = house.message("tools/call", {"name": "echo"})
    assert (
        await house.client.post(f"{house.url}/mcp/demo", content=body, headers=headers)
    ).status_code == 200
    assert not {"x_api_key", "x-http-method-override"} & set(house.upstream.seen[0].headers)


async def test_what_is_no_slug_is_no_server_and_stands_in_no_header(house: House) -> None:
    for path in ("x%0d%0aSet-Cookie:%20a=b", 'x"y', "UPPER", "a" * 100):
        response = await house.client.get(f"{house.url}/mcp/{path}")
        assert response.status_code == 404
        assert "www-authenticate" not in response.headers


async def test_one_person_cannot_take_all_the_places(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    house.upstream.script = script
    calls = [asyncio.create_task(house.call()) for _ in range(5)]
    await eventually(lambda: len(house.upstream.seen) == 4)
    (refused,) = (await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED))[0]
    assert refused.result().status_code == 429
    assert refused.result().headers["retry-after"] == "1"
    house.upstream.script = None
    assert (await house.call(bearer=token("bob"))).status_code == 200, "others are not affected"
    for call in calls:
        call.cancel()
    (record,) = [record for record in house.records() if record["reason"] == "too_many_calls"]
    assert (record["status"], record["rule"]) == ("denied", "")


async def test_a_call_is_decided_again_before_its_first_byte_is_sent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection takes long; meanwhile the replica loses its lease, and the change elsewhere its wait."""
    connecting, go_on = asyncio.Event(), asyncio.Event()
    connect = Pool.connect

    async def slowly(pool: Pool, timeout: float) -> Connection:
        connecting.set()
        await go_on.wait()
        return await connect(pool, timeout)

    monkeypatch.setattr(Pool, "connect", slowly)
    call = asyncio.create_task(house.call())
    await asyncio.wait_for(connecting.wait(), 5)
    monkeypatch.setattr(type(house.gateway.lease), "valid", False)
    go_on.set()
    response = await call
    assert (response.status_code, response.json()["error"]["data"]["reason"]) == (503, "lease_expired")
    assert not house.upstream.seen
    record = await house.record()
    assert (record["status"], record["reason"]) == ("denied", "lease_expired")


async def test_what_was_forbidden_while_the_replica_was_cut_off_ends_when_it_hears_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        started.set()
        await exchange.until_gone()

    house.upstream.script = script
    running = asyncio.create_task(house.call())
    await asyncio.wait_for(started.wait(), 5)
    monkeypatch.setattr(type(house.gateway.lease), "valid", False)  # it has just come back
    await house.put(Revoked(version=1, grant="grant-alice", at=1))
    assert (await asyncio.wait_for(running, 5)).status_code == 401


async def test_pages_of_other_origins_may_not_call(house: House) -> None:
    response = await house.call(origin="https://evil.example")
    assert response.status_code == 403
    assert not house.upstream.seen


async def test_a_denied_tool_is_refused_when_called_and_says_why(house: House) -> None:
    response = await house.call("forbidden")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (200, -31403)
    assert response.json()["id"] == 1
    assert error["data"]["reason"] == "tool_denied"
    assert error["data"]["rule"] == "group.default"
    assert error["data"]["revision"] > 0
    assert not house.upstream.seen
    assert (await house.record())["status"] == "denied"


TOOLS = [{"name": "echo", "big": 2**70}, {"name": "forbidden"}, {"name": "other", "unknown": {"x": 1.0}}]


async def test_a_denied_tool_is_absent_from_a_list_in_json_and_the_rest_is_untouched(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"tools": TOOLS, "nextCursor": "c", "extra": 2**70})

    house.upstream.script = script
    result = (await house.post(house.message("tools/list"))).json()["result"]
    assert result == {"tools": [TOOLS[0], TOOLS[2]], "nextCursor": "c", "extra": 2**70}


async def test_a_filtered_list_of_the_modern_era_is_private_and_short_lived(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(
            {"resultType": "complete", "tools": TOOLS, "ttlMs": 3_600_000, "cacheScope": "public"}
        )

    house.upstream.script = script
    result = (await house.post(house.message("tools/list"))).json()["result"]
    assert [tool["name"] for tool in result["tools"]] == ["echo", "other"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 5000)


async def test_a_denied_tool_is_absent_from_a_list_inside_events(house: House) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()
    note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(note + b"id: 7\r\nretry: 5\r\nevent: message\r\ndata: " + message[:50])
        await exchange.event(message[50:] + b"\r\n\r\n: bye\n\n", last=True)

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    first, listed, comment = response.content.split(b"\n\n")[:3]
    assert first + b"\n\n" == note
    assert listed.startswith(b"id: 7\nretry: 5\nevent: message\ndata: ")
    tools = json.loads(listed.split(b"data: ")[1])["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["echo", "other"]
    assert comment == b": bye"
    assert response.headers["x-accel-buffering"] == "no"


async def test_a_list_replayed_on_a_get_stream_is_filtered_by_the_group_as_it_is_then(house: House) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b": hello\n\n")
        opened.set()
        await go_on.wait()
        await exchange.event(b"data: " + message + b"\n\n", last=True)

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    getting = asyncio.create_task(house.client.get(f"{house.url}/mcp/demo", headers=headers))
    await asyncio.wait_for(opened.wait(), 5)
    access = ServerAccess(tools={"forbidden": "deny", "other": "deny"})
    await house.put(Group(version=2, id="default", name="E", servers={"demo": access}))
    go_on.set()
    listed = (await getting).content.split(b"data: ")[1]
    assert [tool["name"] for tool in json.loads(listed)["result"]["tools"]] == ["echo"]


@pytest.mark.parametrize("form", ["JSON with another status", "events behind a byte order mark"])
async def test_a_list_in_an_unusual_form_is_filtered_too_and_recorded_as_shown(
    house: House, form: str
) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()

    async def script(exchange: Exchange) -> None:
        if form.startswith("JSON"):
            await exchange.answer(message, 203)
        else:
            await exchange.open_stream()
            await exchange.event(b"\xef\xbb\xbfdata: " + message + b"\n\n", last=True)

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    assert b'"forbidden"' not in response.content
    assert b'"other"' in response.content
    record = await house.record()
    assert '"forbidden"' not in record["output"]
    assert '"other"' in record["output"]


async def test_a_list_that_cannot_be_read_is_not_shown(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"forbidden"}')

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    assert response.status_code == 502
    assert b"forbidden" not in response.content
    assert (await house.record())["reason"] == "upstream_bad_answer"


async def test_events_pass_as_they_come(house: House) -> None:
    step = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: 1\n\n")
        await step.wait()
        await exchange.event(b'data: {"jsonrpc":"2.0","id":1,"result":{"isError":true}}\n\n', last=True)

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    body = house.message("tools/call", {"name": "echo"})
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 1\n\n"  # before the upstream has gone on
        step.set()
        rest = b"".join([chunk async for chunk in chunks])
    assert rest.startswith(b"data: {")
    record = await house.record()
    assert (record["status"], record["output"]) == ("error", '{"isError":true}')


async def test_a_client_that_goes_away_cancels_the_call_upstream(house: House) -> None:
    started = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        started.set()
        await exchange.until_gone()

    house.upstream.script = script
    call = asyncio.create_task(house.call())
    await asyncio.wait_for(started.wait(), 5)
    call.cancel()
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("cancelled", "cancelled")


async def test_a_client_that_leaves_with_its_answer_has_not_cancelled_anything(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n')
        await exchange.until_gone()

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    body = house.message("tools/call", {"name": "echo"})
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        await anext(response.aiter_raw())
    record = await house.record()
    assert (record["status"], record["reason"], record["output"]) == ("ok", "allowed", '{"content":[]}')


async def test_session_ids_are_bound_to_their_user_and_server(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({}, mcp_session_id="upstream-session")

    house.upstream.script = script
    session = (await house.post(house.message("initialize", {}))).headers["mcp-session-id"]
    assert session != "upstream-session"

    assert (await house.call(mcp_session_id=session)).status_code == 200
    assert house.upstream.seen[-1].headers["mcp-session-id"] == "upstream-session"

    for bearer, given in [(token("bob"), session), (token(), "upstream-session"), (token(), session[:-1])]:
        response = await house.call(bearer=bearer, mcp_session_id=given)
        assert response.status_code == 404
        assert response.json()["error"]["data"]["reason"] == "session_foreign"
    assert len(house.upstream.seen) == 2


async def test_get_and_delete_of_a_session_pass(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.open_stream()
            await exchange.event(b"id: 1\ndata: {}\n\n", last=True)
        elif exchange.method == "DELETE":
            await exchange.answer(b"", 200)
        else:
            await exchange.result({}, mcp_session_id="s")

    house.upstream.script = script
    session = (await house.post(house.message("initialize", {}))).headers["mcp-session-id"]
    headers = {"authorization": f"Bearer {token()}", "mcp-session-id": session}
    got = await house.client.get(f"{house.url}/mcp/demo", headers=headers | {"last-event-id": "0"})
    assert got.content == b"id: 1\ndata: {}\n\n"
    assert house.upstream.seen[-1].headers["last-event-id"] == "0"
    assert (await house.client.delete(f"{house.url}/mcp/demo", headers=headers)).status_code == 200
    await house.record(3)
    assert [record["method"] for record in house.records()] == ["initialize", "GET", "DELETE"]


async def test_an_answer_to_a_request_of_the_server_passes(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"", 202)

    house.upstream.script = script
    body = b'{"jsonrpc":"2.0","id":9,"result":{"roots":[]}}'
    assert (await house.post(body)).status_code == 202
    assert house.upstream.seen[0].body == body
    assert (await house.record())["method"] == "response"


async def test_an_error_of_the_upstream_passes_as_it_is(house: House) -> None:
    """A dual-era client falls back by the upstream's own 400 body."""
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"Bad Request: no session"}}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, 400)

    house.upstream.script = script
    response = await house.call()
    assert (response.status_code, response.content) == (400, body)
    record = await house.record()
    assert (record["status"], record["http_status"], record["error_code"]) == ("error", 400, -32000)


async def test_an_upstream_that_is_down_is_named_with_the_reason(house: House) -> None:
    await house.put(Server(version=2, slug="demo", name="Demo", url="http://127.0.0.1:9/mcp"))
    response = await house.call()
    assert response.status_code == 502
    assert response.json()["error"]["message"] == "Lockgate: demo: it refuses connections"
    record = await house.record()
    assert (record["status"], record["reason"]) == ("failed", "upstream_unreachable")
    assert record["duration_us"] > 0


async def test_an_upstream_that_is_slow_is_given_up_in_time(house: House) -> None:
    await house.put(Server(version=2, slug="demo", name="Demo", url=house.upstream.url, response_timeout=0.2))

    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    house.upstream.script = script
    response = await house.call()
    assert response.status_code == 504
    assert "did not answer within 0.2 s" in response.json()["error"]["message"]
    assert (await house.record())["reason"] == "upstream_timeout"
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)


LIES = {
    b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{": ("upstream_broke_off", None),
    b"SSH-2.0-OpenSSH_9.2\r\n": ("upstream_bad_answer", 502),
    b"": ("upstream_broke_off", 502),
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n": (
        "upstream_bad_answer",
        502,
    ),
    b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n": ("upstream_unauthorized", 502),
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx": ("upstream_bad_answer", 502),
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n": ("upstream_bad_answer", 502),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie[:40].decode())
async def test_an_upstream_that_lies_is_found_out_and_recorded(house: House, lie: bytes) -> None:
    reason, status = LIES[lie]

    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(lie)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(liar, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await house.put(Server(version=2, slug="demo", name="Demo", url=f"http://127.0.0.1:{port}/mcp"))
    if status is None:
        with pytest.raises(Exception, match=r"peer closed|disconnected|incomplete"):
            await house.call()
    else:
        response = await house.call()
        assert response.status_code == status
        assert response.json()["error"]["message"].startswith("Lockgate: demo: ")
    record = await house.record()
    assert (record["status"], record["reason"]) == ("failed", reason)
    server.close()


async def test_the_credential_is_added_and_the_callers_own_header_of_that_name_is_not(
    house: House, vault: list[OpenCredential]
) -> None:
    bearer = token(audience=f"{PUBLIC_URL}/mcp/keyed")
    for _ in range(2):
        response = await house.call(bearer=bearer, server="keyed", x_api_key="mine")
        assert response.status_code == 200
        assert "s3cret" not in str(response.headers) + response.text
    assert [seen.headers["x-api-key"] for seen in house.upstream.seen] == ["s3cret-1", "s3cret-1"]
    assert len(vault) == 1  # the second call found it in memory
    assert "s3cret" not in str(house.records())

    await house.put(
        CredentialVersion(version=2, slug="keyed", user="organization", origin=origin_of(house.upstream.url))
    )
    await house.call(bearer=bearer, server="keyed")
    assert house.upstream.seen[-1].headers["x-api-key"] == "s3cret-2"


async def test_an_upstream_that_repeats_the_key_does_not_reveal_it(
    house: House, vault: list[OpenCredential]
) -> None:
    async def script(exchange: Exchange) -> None:
        key = exchange.headers["x-api-key"].encode()
        await exchange.open_stream(x_seen=key.decode())
        answer = b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"got ' + key + b'"}]}}\n\n'
        middle = answer.index(key) + 3
        await exchange.event(answer[:middle])  # cut in the middle of the key
        await exchange.event(answer[middle:], last=True)

    house.upstream.script = script
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert "got ********" in response.text
    assert "s3cret" not in response.text + str(response.headers)
    record = await house.record()
    assert "s3cret" not in str(record)
    assert "got ********" in record["output"]


async def test_a_call_without_its_credential_is_refused(house: House) -> None:
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert response.json()["error"]["data"]["reason"] == "credential_missing"
    await house.put(
        CredentialVersion(version=1, slug="keyed", user="organization", origin=origin_of(house.upstream.url))
    )
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert response.status_code == 503  # nobody holds it out to us
    assert not house.upstream.seen


GROUP = Group(version=2, id="default", name="Everybody", servers={})
ENDINGS: dict[str, tuple[Callable[[str], AnyEntry], str]] = {
    "the server is switched off": (
        lambda url: Server(version=2, slug="demo", name="Demo", url=url, enabled=False, reason="audit"),
        "server_disabled",
    ),
    "the organization is switched off": (lambda url: Org(version=1, enabled=False), "organization_disabled"),
    "the group loses the server": (lambda url: GROUP, "server_not_allowed"),
    "the group loses the tool": (
        lambda url: Group(
            version=2,
            id="default",
            name="E",
            servers={"demo": ServerAccess(tools={"echo": "deny"})},
        ),
        "tool_denied",
    ),
    "the grant is revoked": (lambda url: Revoked(version=1, grant="grant-alice", at=1), "token_revoked"),
    "the user is deactivated": (
        lambda url: User(version=2, id="alice", email="alice@x.example", active=False),
        "user_inactive",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_change_refuses_the_next_call_and_ends_the_one_in_flight(house: House, name: str) -> None:
    make, reason = ENDINGS[name]
    started = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        started.set()
        await exchange.until_gone()

    house.upstream.script = script
    running = asyncio.create_task(house.call())
    await asyncio.wait_for(started.wait(), 5)

    await house.put(make(house.upstream.url))

    ended = await asyncio.wait_for(running, 5)
    assert ended.status_code in {200, 401, 404}
    assert "error" in ended.json()
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("denied", reason)

    response = await house.call()
    assert "error" in response.json()
    assert len(house.upstream.seen) == 1


async def test_what_is_switched_on_again_works_again(house: House) -> None:
    server = Server(
        version=2, slug="demo", name="Demo", url=house.upstream.url, enabled=False, reason="audit"
    )
    await house.put(server)
    response = await house.call()
    assert response.json()["error"]["message"] == "Lockgate: demo: it is off: audit"
    await house.put(Server(version=3, slug="demo", name="Demo", url=house.upstream.url))
    assert "result" in (await house.call()).json()


async def test_a_replica_without_a_lease_admits_nothing(house: House, nats: object) -> None:
    nats.stop()  # type: ignore[attr-defined]
    await eventually(lambda: not house.gateway.fresh)
    response = await house.call()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert not house.upstream.seen
    assert (await house.record())["reason"] == "lease_expired"
    assert (await house.client.get(f"{house.url}/readyz")).status_code == 503
    nats.start()  # type: ignore[attr-defined]


async def test_a_journal_that_cannot_be_written_refuses_the_call(house: House) -> None:
    real, house.gateway.journal._fd = house.gateway.journal._fd, os.open("/dev/full", os.O_WRONLY)
    response = await house.call()
    assert response.status_code == 503
    assert response.json()["error"]["data"]["reason"] == "journal_unavailable"
    assert not house.upstream.seen
    house.gateway.journal._fd = real
    assert (await house.call()).status_code == 200
    await eventually(lambda: len(house.records()) == 2)
    assert [(r["seq"], r["status"]) for r in house.records()] == [(1, "denied"), (2, "ok")]


async def test_a_long_answer_is_cut_in_the_record_and_whole_for_the_caller(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"content": [{"type": "text", "text": "é" * 10_000}]})

    house.upstream.script = script
    response = await house.call()
    assert response.json()["result"]["content"][0]["text"] == "é" * 10_000
    record = await house.record()
    assert len(record["output"]) <= 4096
    assert record["output_bytes"] > 10_000
    assert len(record["output_sha256"]) == 64


async def test_connections_to_the_upstream_are_used_again(house: House) -> None:
    for _ in range(20):
        assert (await house.call()).status_code == 200
    pool = next(iter(house.gateway.pools._pools.values()))
    assert pool._count == 1
