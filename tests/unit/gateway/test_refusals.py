"""Who and what is turned away, with which answer, and how it is recorded. Real sockets on both sides."""

import asyncio
from collections.abc import Callable

import pytest
from joserfc.jwk import ECKey

from libs.common.control.entries import (
    Revoked,
)
from services.gateway.connection import Connection
from services.gateway.pool import Pool
from tests.conftest import eventually
from tests.unit.gateway.conftest import KEY, PUBLIC_URL, Exchange, House, token


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
    "too deep": (b"[" * 30_000 + b"]" * 30_000, 400, -32600, "too_deep"),
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
    "a resource to complete for in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":'
        b'{"type":"ref/prompt","name":"a","Name":"b"}}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "subscriptions in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":'
        b'{"resourcesubscriptions":["file:///a"]}}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "an era in two cases": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":'
        b'{"io.modelcontextprotocol/protocolversion":"2026-07-28"}}}',
        400,
        -32600,
        "ambiguous_key",
    ),
    "half a character as a name": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}',
        400,
        -32600,
        "invalid_request",
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


VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION}
METHOD, NAME, PROTOCOL = "mcp-method", "mcp-name", "mcp-protocol-version"
WELL = [(METHOD, "tools/call"), (NAME, "echo"), (PROTOCOL, VERSION)]
DISAGREEING: dict[str, list[tuple[str, str]]] = {
    "no version": [WELL[0], WELL[1]],
    "another version": [WELL[0], WELL[1], (PROTOCOL, "2025-11-25")],
    "no method": WELL[1:],
    "no name": [WELL[0], WELL[2]],
    "another name": [WELL[0], (NAME, "forbidden"), WELL[2]],
    "the name in another case": [WELL[0], (NAME, "Echo"), WELL[2]],
    "the name and another": [*WELL, (NAME, "forbidden")],
    "two sessions": [*WELL, ("mcp-session-id", "a"), ("mcp-session-id", "b")],
    "two versions": [*WELL, (PROTOCOL, "2025-11-25")],
    "a name that is no Base64": [WELL[0], (NAME, "=?base64?ZWN*obw==?="), WELL[2]],
    "a name that is no UTF-8": [WELL[0], (NAME, "=?base64?/w==?="), WELL[2]],
    "a name in loose Base64": [WELL[0], (NAME, "=?base64?ZWNobx==?="), WELL[2]],
    "a parameter that is no Base64": [*WELL, ("mcp-param-region", "=?base64?!?=")],
    "a parameter that is no text": [*WELL, ("mcp-param-region", "=?base64?/w==?=")],
    "a parameter twice, with different values": [*WELL, ("mcp-param-region", "a"), ("Mcp-Param-Region", "b")],
}


@pytest.mark.parametrize("name", DISAGREEING)
async def test_headers_of_the_modern_era_must_agree_with_the_body_and_each_other(
    house: House, name: str
) -> None:
    body = house.message("tools/call", {"name": "echo", "_meta": META})
    base = [("authorization", f"Bearer {token()}"), ("content-type", "application/json")]
    url = f"{house.url}/mcp/demo"
    response = await house.client.post(url, content=body, headers=[*base, *DISAGREEING[name]])
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
    assert not house.upstream.seen
    assert (await house.record())["reason"] == "header_mismatch"
    assert (await house.client.post(url, content=body, headers=[*base, *WELL])).status_code == 200


async def test_parameters_in_headers_go_on_as_they_came_and_stand_twice_if_they_did(house: House) -> None:
    body = house.message("tools/call", {"name": "echo", "_meta": META})
    parameters = [("mcp-param-a", "=?base64?w6k=?="), ("MCP-PARAM-B", "us-west1"), ("mcp-param-c", "x")]
    headers = [
        ("authorization", f"Bearer {token()}"),
        ("content-type", "application/json"),
        *WELL,
        *parameters,
    ]
    response = await house.client.post(f"{house.url}/mcp/demo", content=body, headers=headers)
    assert response.status_code == 200
    seen = house.upstream.seen[0].headers
    assert {name: seen[name] for name in seen if name.startswith("mcp-param")} == {
        "mcp-param-a": "=?base64?w6k=?=",
        "mcp-param-b": "us-west1",
        "mcp-param-c": "x",
    }


async def test_the_name_of_a_task_has_to_be_true_if_it_is_there(house: House) -> None:
    body = house.message("tasks/get", {"taskId": "t1", "_meta": META})
    headers = {"mcp_method": "tasks/get", "mcp_protocol_version": VERSION}
    assert (await house.post(body, **headers)).status_code == 200
    assert (await house.post(body, mcp_name="t1", **headers)).status_code == 200
    assert (await house.post(body, mcp_name="t2", **headers)).status_code == 400


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
