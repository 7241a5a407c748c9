"""What becomes of a message in the other era. The official types of either revision judge what comes out."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types.methods import (
    CACHEABLE_METHODS,
    validate_client_request,
    validate_server_result,
)

from services.gateway import protocol
from services.gateway.eras import discovery, failures, inputs, translation
from services.gateway.eras.failures import RequestFailed
from services.gateway.eras.subscriptions import (
    Filter,
    acknowledgement,
    filter_of,
    with_subscription,
    without_subscription,
)
from services.gateway.eras.translation import Identity
from services.gateway.messages import Message, NotAMessage, read

MODERN, LEGACY = "2026-07-28", "2025-11-25"
P = "io.modelcontextprotocol/"
WHO = Identity(b'{"elicitation": {}}', b'{"name": "c", "version": "1"}')
ENVELOPE = {
    P + "protocolVersion": MODERN,
    P + "clientCapabilities": {"elicitation": {}},
    P + "clientInfo": {"name": "c", "version": "1"},
}
HUGE = 2**70 + 1

# JSON as peers may send it: integers of any size, names that nobody knows.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
UNKNOWN = st.dictionaries(st.from_regex(r"x-[a-z]{1,5}", fullmatch=True), VALUES, max_size=3)


def legacy(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def result_of(message: bytes) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(message)["result"]
    return result


def result_from(result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def error_from(code: int, **data: Any) -> bytes:
    return json.dumps({"code": code, "message": "no"} | ({"data": data} if data else {})).encode()


class TestRequests:
    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("tools/call", {"name": "echo", "arguments": {"n": HUGE}}),
            ("tools/list", {}),
            ("tools/list", {"cursor": "c"}),
            ("prompts/get", {"name": "p"}),
            ("resources/read", {"uri": "a://b"}),
            (
                "completion/complete",
                {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}},
            ),
        ],
    )
    def test_each_is_valid_in_the_other_era_and_back(self, method: str, params: dict[str, Any]) -> None:
        request = legacy(method, **params)
        modern = json.loads(translation.modern_request(request, b"7", WHO, "info"))
        validate_client_request(method, MODERN, modern["params"])
        assert modern["id"] == 7
        back = json.loads(translation.legacy_request(json.dumps(modern).encode(), b"1"))
        validate_client_request(method, LEGACY, back["params"])
        assert back == json.loads(request)

    def test_a_request_without_params_gets_the_envelope(self) -> None:
        request = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        assert json.loads(translation.modern_request(request, b"1", WHO))["params"] == {"_meta": ENVELOPE}

    def test_the_log_level_is_part_of_each_request(self) -> None:
        modern = json.loads(translation.modern_request(legacy("tools/list"), b"1", WHO, "warning"))
        assert modern["params"]["_meta"][P + "logLevel"] == "warning"

    def test_a_client_that_says_no_name_gets_none(self) -> None:
        modern = translation.modern_request(legacy("tools/list"), b"1", Identity(b"{}"))
        assert P + "clientInfo" not in json.loads(modern)["params"]["_meta"]

    def test_a_legacy_client_cannot_speak_for_another(self) -> None:
        forged = legacy(
            "tools/call", name="t", _meta={P + "clientInfo": {"name": "other"}, "traceparent": "00-1"}
        )
        meta = json.loads(translation.modern_request(forged, b"1", WHO))["params"]["_meta"]
        assert meta == ENVELOPE | {"traceparent": "00-1"}

    def test_what_would_gain_a_meaning_goes(self) -> None:
        request = legacy("tools/call", name="t", task={"ttl": 1}, requestState="s", inputResponses={})
        assert json.loads(translation.modern_request(request, b"1", WHO))["params"].keys() == {
            "name",
            "_meta",
        }

    @pytest.mark.parametrize(("token", "meta"), [(b"9", {"progressToken": 9}), (b"", None)])
    def test_the_progress_token_is_ours_or_none(self, token: bytes, meta: Any) -> None:
        request = legacy("tools/call", name="t", _meta=ENVELOPE | {"progressToken": "theirs"})
        assert json.loads(translation.legacy_request(request, b"9", token))["params"].get("_meta") == meta

    @given(UNKNOWN, UNKNOWN, UNKNOWN)
    def test_unknown_members_and_big_integers_come_back_as_they_went(
        self, top: dict[str, Any], params: dict[str, Any], meta: dict[str, Any]
    ) -> None:
        members = params | ({"_meta": meta} if meta else {})
        message = {"jsonrpc": "2.0", "id": HUGE, "method": "tools/call", "params": members} | top
        there = translation.modern_request(json.dumps(message).encode(), b"1", WHO)
        assert json.loads(translation.legacy_request(there, b"%d" % HUGE)) == message


TOOL = {"name": "t", "inputSchema": {"type": "object"}}
CASES = [
    ("tools/list", {"tools": [TOOL], "nextCursor": "n"}),
    ("prompts/list", {"prompts": []}),
    ("resources/list", {"resources": []}),
    ("resources/templates/list", {"resourceTemplates": []}),
    ("resources/read", {"contents": [{"uri": "a://b", "text": "x"}]}),
    ("tools/call", {"content": [], "structuredContent": {"n": HUGE}, "isError": False}),
    ("prompts/get", {"messages": []}),
    ("completion/complete", {"completion": {"values": []}}),
]


class TestResults:
    @pytest.mark.parametrize(("method", "result"), CASES)
    def test_each_is_valid_in_the_other_era_and_back(self, method: str, result: dict[str, Any]) -> None:
        modern = translation.modern_response(result_from(result), b"7", method, b'{"name":"s","version":"1"}')
        validate_server_result(method, MODERN, result_of(modern))
        assert json.loads(modern)["id"] == 7
        back = translation.legacy_response(modern, b"1", method)
        validate_server_result(method, LEGACY, result_of(back))
        assert result_of(back) == result

    @pytest.mark.parametrize(("method", "result"), CASES)
    def test_only_what_may_be_kept_says_how_long(self, method: str, result: dict[str, Any]) -> None:
        modern = result_of(translation.modern_response(result_from(result), b"1", method, b""))
        assert modern["resultType"] == "complete"
        fresh = {"ttlMs": 0, "cacheScope": "private"} if method in CACHEABLE_METHODS else {}
        assert {key: modern[key] for key in modern if key in {"ttlMs", "cacheScope"}} == fresh

    def test_the_name_of_the_server_is_in_each(self) -> None:
        meta = result_of(
            translation.modern_response(
                result_from({"_meta": {"a": 1}}), b"1", "x/y", b'{"name":"s","version":"1"}'
            )
        )["_meta"]
        assert meta == {"a": 1, P + "serverInfo": {"name": "s", "version": "1"}}

    @given(st.sampled_from([method for method, _ in CASES]), UNKNOWN, UNKNOWN, UNKNOWN)
    def test_unknown_members_and_big_integers_come_back_as_they_went(
        self, method: str, top: dict[str, Any], result: dict[str, Any], meta: dict[str, Any]
    ) -> None:
        members = result | ({"_meta": meta} if meta else {})
        message = {"jsonrpc": "2.0", "id": HUGE, "result": members} | top
        there = translation.modern_response(json.dumps(message).encode(), b"1", method, b'{"name":"s"}')
        assert json.loads(translation.legacy_response(there, b"%d" % HUGE, method)) == message

    def test_bytes_that_are_not_touched_stay_as_they_were(self) -> None:
        odd = b'{"jsonrpc":"2.0","id":1,"result":{"content":[ {"n":1.50e0 , "u":"\\u00e4"} ]}}'
        assert b'[ {"n":1.50e0 , "u":"\\u00e4"} ]' in translation.modern_response(
            odd, b"1", "tools/call", b""
        )

    @pytest.mark.parametrize("structured", [[1], 1, "text", None, True])
    def test_structured_output_that_is_no_object_is_left_to_its_text(self, structured: Any) -> None:
        """SEP-2106: clients of earlier revisions reject anything else."""
        result = {"content": [{"type": "text", "text": "[1]"}], "structuredContent": structured}
        back = result_of(translation.legacy_response(result_from(result), b"1", "tools/call"))
        assert back == {"content": [{"type": "text", "text": "[1]"}]}

    def test_so_is_its_schema(self) -> None:
        objects = TOOL | {"name": "o", "outputSchema": {"type": "object"}}
        arrays = TOOL | {"name": "a", "outputSchema": {"type": "array"}}
        modern = {"tools": [objects, arrays], "ttlMs": 1, "cacheScope": "public", "resultType": "complete"}
        back = result_of(translation.legacy_response(result_from(modern), b"1", "tools/list"))
        validate_server_result("tools/list", LEGACY, back)
        assert back == {"tools": [objects, TOOL | {"name": "a"}]}

    def test_null_beside_a_result_is_no_error(self) -> None:
        sloppy = b'{"jsonrpc":"2.0","id":1,"error":null,"result":{}}'
        assert json.loads(translation.modern_response(sloppy, b"1", "x", b"")) == {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {"resultType": "complete"},
        }

    @pytest.mark.parametrize(
        ("result", "kind"),
        [(b"{}", "complete"), (b'{"resultType":"task"}', "task"), (b'{"resultType":1}', "")],
    )
    def test_what_says_no_kind_is_complete(self, result: bytes, kind: str) -> None:
        assert translation.result_type(result) == kind


DISCOVERED: dict[str, Any] = {
    "resultType": "complete",
    "supportedVersions": [MODERN],
    "capabilities": {
        "tools": {"listChanged": True},
        "extensions": {"x.y/z": {}, P + "tasks": {}},
    },
    "instructions": "Be kind",
    "ttlMs": 1000,
    "cacheScope": "public",
    "_meta": {P + "serverInfo": {"name": "s", "version": "1"}, "kept": HUGE},
    "unknown": HUGE,
}
INITIALIZED: dict[str, Any] = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {"listChanged": True}, "tasks": {"list": {}}},
    "serverInfo": {"name": "s", "version": "1"},
    "instructions": "Be kind",
    "unknown": HUGE,
}


class TestDiscovery:
    def test_discover_becomes_initialize(self) -> None:
        result = json.loads(
            discovery.initialize_result(json.dumps(DISCOVERED).encode(), "2025-06-18", "slug")
        )
        validate_server_result("initialize", "2025-06-18", result)
        assert result == {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}, "extensions": {"x.y/z": {}}},
            "serverInfo": {"name": "s", "version": "1"},
            "instructions": "Be kind",
            "_meta": {"kept": HUGE},
            "unknown": HUGE,
        }

    def test_a_server_that_does_not_say_its_name_gets_the_one_it_is_registered_under(self) -> None:
        result = json.loads(discovery.initialize_result(b'{"capabilities":{}}', LEGACY, "slug"))
        validate_server_result("initialize", LEGACY, result)
        assert result["serverInfo"]["name"] == "slug"

    def test_initialize_becomes_discover(self) -> None:
        result = json.loads(discovery.discover_result(json.dumps(INITIALIZED).encode()))
        validate_server_result("server/discover", MODERN, result)
        assert result == {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {"listChanged": True}},
            "instructions": "Be kind",
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {P + "serverInfo": {"name": "s", "version": "1"}},
            "unknown": HUGE,
        }

    @pytest.mark.parametrize(
        ("asked", "spoken"),
        [
            *((version, version) for version in protocol.LEGACY),
            (MODERN, LEGACY),
            ("1999-01-01", LEGACY),
            ("", LEGACY),
        ],
    )
    def test_a_known_revision_is_spoken_as_asked_and_the_latest_for_any_other(
        self, asked: str, spoken: str
    ) -> None:
        assert discovery.negotiated(asked) == spoken

    @pytest.mark.parametrize(
        ("capabilities", "there"),
        [
            (b'{"resources":{"subscribe":true}}', True),
            (b'{"resources":{"subscribe":false}}', False),
            (b'{"resources":{}}', False),
            (b'{"resources":null}', False),
            (b"{}", False),
        ],
    )
    def test_a_capability_is_there_or_not(self, capabilities: bytes, there: bool) -> None:
        assert discovery.has_capability(capabilities, "resources", "subscribe") is there


class TestUntranslatable:
    @pytest.mark.parametrize(
        ("method", "client"),
        [
            ("tasks/get", "legacy"),
            ("tasks/result", "legacy"),
            ("server/discover", "legacy"),
            ("subscriptions/listen", "legacy"),
            ("tasks/get", "modern"),
            ("tasks/update", "modern"),
            ("initialize", "modern"),
            ("ping", "modern"),
            ("logging/setLevel", "modern"),
            ("resources/subscribe", "modern"),
            ("resources/unsubscribe", "modern"),
        ],
    )
    def test_it_is_said_to_be_unknown_and_why(self, method: str, client: Any) -> None:
        with pytest.raises(RequestFailed) as refused:
            translation.refuse_untranslatable(method, client)
        error = json.loads(refused.value.error)
        assert error["code"] == -32601
        assert method in error["message"]
        assert "2026-07-28" in error["message"]

    @pytest.mark.parametrize("method", ["tools/call", "vendor/extension", "completion/complete"])
    def test_everything_else_passes(self, method: str) -> None:
        translation.refuse_untranslatable(method, "modern")
        translation.refuse_untranslatable(method, "legacy")


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "modern"),
        [(-32002, -32602), (-32601, -32601), (-32603, -32603), (-1, -1), (-32001, -32001), (7, 7)],
    )
    def test_a_legacy_code_in_the_modern_era(self, code: int, modern: int) -> None:
        error = json.loads(failures.modern_error(error_from(code, uri="a://b")))
        assert (error["code"], error["data"]) == (modern, {"uri": "a://b"})

    @pytest.mark.parametrize("code", [-32020, -32022, -32042, -32099])
    def test_a_code_that_means_something_else_now_moves_into_the_data(self, code: int) -> None:
        error = json.loads(failures.modern_error(error_from(code, n=HUGE)))
        assert error == {
            "code": -32603,
            "message": "no",
            "data": {"legacyCode": code, "legacyData": {"n": HUGE}},
        }

    def test_a_resource_that_is_not_there_has_a_code_of_its_own_in_the_legacy_era(self) -> None:
        assert (
            json.loads(failures.legacy_error("resources/read", error_from(-32602, uri="a://b")))["code"]
            == -32002
        )

    @pytest.mark.parametrize(
        ("method", "error"),
        [
            ("resources/read", error_from(-32602)),
            ("resources/read", error_from(-32602, other=1)),
            ("tools/call", error_from(-32602, uri="a://b")),
            ("tools/call", error_from(-32021, requiredCapabilities={})),
            ("tools/call", b'{"code":"odd","message":"x"}'),
        ],
    )
    def test_other_errors_stay_as_they_are(self, method: str, error: bytes) -> None:
        assert failures.legacy_error(method, error) == error


FORM = {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}}
URL = {"mode": "url", "message": "?", "url": "https://a.example"}


class TestInputs:
    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("elicitation/create", FORM | {"x": HUGE}),
            ("elicitation/create", URL | {"elicitationId": "e"}),
            ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
            ("roots/list", None),
        ],
    )
    def test_a_question_there_and_back(self, method: str, params: dict[str, Any] | None) -> None:
        encoded = json.dumps(params).encode() if params else b""
        modern = inputs.modern_question(method, encoded)
        asked = inputs.input_required({"1": msgspec.Raw(modern)}, "s")
        validate_server_result("tools/call", MODERN, json.loads(asked))
        assert "elicitationId" not in json.loads(modern).get("params", {})
        back = json.loads(inputs.legacy_question(b'"q"', modern, "e"))
        assert back == {"jsonrpc": "2.0", "id": "q", "method": method} | (
            {"params": params} if params else {}
        )

    @pytest.mark.parametrize(
        ("capabilities", "method", "params", "code"),
        [
            ({"elicitation": {}}, "elicitation/create", {}, None),
            ({"elicitation": {}}, "elicitation/create", {"mode": "form"}, None),
            ({"elicitation": {}}, "elicitation/create", URL, -32602),
            ({"elicitation": {"url": {}}}, "elicitation/create", URL, None),
            ({"elicitation": {"url": {}}}, "elicitation/create", {"mode": "form"}, -32602),
            ({"elicitation": {"form": {}, "url": {}}}, "elicitation/create", {"mode": "form"}, None),
            ({"sampling": {}}, "elicitation/create", {}, -32601),
            ({"sampling": {}}, "sampling/createMessage", {}, None),
            ({"roots": {}}, "roots/list", {}, None),
            ({}, "roots/list", {}, -32601),
            ({"roots": {}}, "tasks/get", {}, -32601),
        ],
    )
    def test_only_what_the_client_declared_may_be_asked(
        self, capabilities: dict[str, Any], method: str, params: dict[str, Any], code: int | None
    ) -> None:
        def ask() -> None:
            inputs.refuse_undeclared(method, json.dumps(params).encode(), json.dumps(capabilities).encode())

        if code is None:
            ask()
            return
        with pytest.raises(RequestFailed) as refused:
            ask()
        assert json.loads(refused.value.error)["code"] == code

    def test_a_retry_carries_answers_and_state(self) -> None:
        request = translation.modern_request(legacy("tools/call", name="t"), b"1", WHO)
        answers = {"k": {"action": "accept", "content": {"n": 1}}}
        raw = {key: json.dumps(value).encode() for key, value in answers.items()}
        retry = json.loads(inputs.retry(request, b"2", {k: msgspec.Raw(v) for k, v in raw.items()}, b'"s"'))
        validate_client_request("tools/call", MODERN, retry["params"])
        assert (retry["id"], retry["params"]["requestState"]) == (2, "s")
        assert retry["params"]["inputResponses"] == answers

    def test_a_retry_without_state_and_answers_carries_none(self) -> None:
        request = translation.modern_request(legacy("tools/call", name="t"), b"1", WHO)
        before = inputs.retry(request, b"2", {}, b'"s"')
        assert json.loads(inputs.retry(before, b"3", None, None))["params"].keys() == {"name", "_meta"}

    @pytest.mark.parametrize("given", ["[]", '{"k": 1}', '"text"'])
    def test_answers_that_are_no_objects_are_refused(self, given: str) -> None:
        with pytest.raises(RequestFailed, match="inputResponses"):
            inputs.answers_of(b'{"inputResponses":%s}' % given.encode())

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ('{"name":"a","arguments":{"x":1,"y":2}}', '{"arguments":{"y":2,"x":1},"name":"a"}', True),
            ('{"name":"a"}', '{"name":"a","_meta":{},"requestState":"s","inputResponses":{}}', True),
            ('{"name":"a","arguments":{"x":1}}', '{"name":"a","arguments":{"x":"1"}}', False),
            (
                f'{{"name":"a","arguments":{{"x":{HUGE}}}}}',
                f'{{"name":"a","arguments":{{"x":{HUGE + 1}}}}}',
                False,
            ),
            ('{"name":"a"}', '{"name":"b"}', False),
        ],
    )
    def test_a_retry_is_known_by_what_it_asks_for(self, one: str, other: str, same: bool) -> None:
        digests = [inputs.subject_digest("tools/call", params.encode()) for params in (one, other)]
        assert (digests[0] == digests[1]) is same
        assert digests[0] != inputs.subject_digest("prompts/get", one.encode())

    REQUIRED = error_from(
        -32042, elicitations=[{"elicitationId": "e", "message": "?", "url": "https://a.example"}]
    )

    def test_urls_that_are_required_are_asked_for(self) -> None:
        result = json.loads(inputs.required_urls(self.REQUIRED, b'{"elicitation":{"url":{}}}'))
        validate_server_result("tools/call", MODERN, result)
        assert result == {
            "resultType": "input_required",
            "inputRequests": {"1": {"method": "elicitation/create", "params": URL}},
        }

    @pytest.mark.parametrize("capabilities", [b"{}", b'{"elicitation":{}}'])
    def test_a_client_that_opens_no_urls_is_told_so(self, capabilities: bytes) -> None:
        with pytest.raises(RequestFailed) as refused:
            inputs.required_urls(self.REQUIRED, capabilities)
        error = json.loads(refused.value.error)
        assert error["code"] == -32021
        assert error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


class TestSubscriptions:
    EVERYTHING = Filter(frozenset({"toolsListChanged", "promptsListChanged"}), frozenset({"a://b", "c://d"}))

    def test_a_filter_there_and_back(self) -> None:
        assert filter_of(json.dumps(self.EVERYTHING.encoded()).encode()) == self.EVERYTHING
        assert Filter().encoded() == {}

    def test_what_is_false_is_not_wanted(self) -> None:
        assert filter_of(b'{"toolsListChanged":false,"promptsListChanged":1,"x":true}') == Filter()

    @pytest.mark.parametrize(
        "bad", [b'{"resourceSubscriptions":"a"}', b'{"resourceSubscriptions":[1]}', b"[]"]
    )
    def test_a_filter_that_is_none_is_refused(self, bad: bytes) -> None:
        with pytest.raises(NotAMessage):
            filter_of(bad)

    @pytest.mark.parametrize(
        ("method", "uri", "wanted"),
        [
            ("notifications/tools/list_changed", "", True),
            ("notifications/resources/list_changed", "", False),
            ("notifications/resources/updated", "a://b", True),
            ("notifications/resources/updated", "a://b/part", True),
            ("notifications/resources/updated", "e://f", False),
            ("notifications/message", "", False),
        ],
    )
    def test_only_what_is_wanted_is_told(self, method: str, uri: str, wanted: bool) -> None:
        told = Message("notification", b"", method, json.dumps({"uri": uri}).encode(), b"", b"")
        assert self.EVERYTHING.wants(told) is wanted

    def test_a_notification_carries_its_subscription_and_loses_it_again(self) -> None:
        plain = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
        marked = with_subscription(plain, b'"an id"')
        assert json.loads(marked)["params"] == {"_meta": {P + "subscriptionId": "an id"}}
        assert without_subscription(marked) == plain

    def test_the_acknowledgement_says_what_is_honoured(self) -> None:
        message = read(acknowledgement(b"5", Filter(frozenset({"toolsListChanged"}))))
        assert message.method == "notifications/subscriptions/acknowledged"
        assert json.loads(message.params) == {
            "_meta": {P + "subscriptionId": 5},
            "notifications": {"toolsListChanged": True},
        }
