"""What is decided on is what an upstream runs, whatever it is written in: tested with messages nearly right.

The oracle is differential: for a body that we accept, every other reader finds the same method, id and
subjects in it, or takes it for no JSON at all.
"""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from mcp_types import JSONRPCRequest
from pydantic import ValidationError

from libs.common.control.entries import Group, ServerAccess
from libs.common.decision.ladder import MayUse, may_use
from libs.common.decision.subjects import Kind
from services.gateway.envelope import Envelope, Malformed, parse
from tests.conftest import eventually
from tests.unit.gateway import json_readers
from tests.unit.gateway.conftest import Exchange, House
from tests.unit.gateway.fuzzing import META_VERSION, METHODS, Writer, fuzzed, messages
from tests.unit.gateway.json_readers import Node, Reader, Unreadable

READERS: dict[str, Reader] = {
    "Python": json_readers.python,
    "the first of two keys wins": json_readers.first_wins,
    "the official SDK": json_readers.official_sdk,
    "msgspec": json_readers.msgspec_raw,
    "Go": json_readers.go,
}


def acts_on(message: dict[str, Any]) -> list[tuple[Kind, Any]]:
    """What a server would run, as the specification of each method says; written apart from ours."""
    params: dict[str, Any] = message.get("params") or {}
    match message.get("method"):
        case "tools/call":
            return [("tool", params.get("name"))]
        case "prompts/get":
            return [("prompt", params.get("name"))]
        case "resources/read":
            return [("resource", params.get("uri"))]
        case "resources/subscribe" | "resources/unsubscribe":
            return [("resource", params["uri"])] if "uri" in params else []
        case "completion/complete" if params["ref"]["type"] == "ref/prompt":
            return [("prompt", params["ref"].get("name"))]
        case "completion/complete":
            return [
                ("resource", params["ref"][key]) for key in ("uri", "uriTemplate") if key in params["ref"]
            ]
        case "subscriptions/listen":
            wanted = params.get("notifications")
            uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
            return [("resource", uri) for uri in uris or []]
    return []


def agree(accepted: Envelope, decoded: Any) -> None:
    assert isinstance(decoded, dict)
    if accepted.kind == "response":
        assert decoded.get("method") is None
        return
    assert decoded["method"] == accepted.method
    assert acts_on(decoded) == [(subject.kind, subject.name) for subject in accepted.subjects]
    assert ("id" in decoded) == (accepted.kind == "request")
    if accepted.kind == "request":
        id = json.loads(accepted.id)
        exact = isinstance(id, str) or abs(id) < 2**53
        assert decoded["id"] == id if exact else abs(decoded["id"] - id) <= abs(id) * 1e-15
    meta = (decoded.get("params") or {}).get("_meta")
    assert accepted.modern == (isinstance(meta, dict) and META_VERSION in meta)


@fuzzed(3000)
@given(messages)
def test_every_reader_finds_what_we_found(body: bytes) -> None:
    try:
        accepted = parse(body)
    except Malformed:
        return
    for reader in READERS.values():
        try:
            decoded = reader(body)
        except Unreadable:
            continue
        agree(accepted, decoded)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    node = Node()
    yield node
    node.close()


@fuzzed(3000)
@given(messages)
def test_node_finds_what_we_found(node: Node, body: bytes) -> None:
    try:
        accepted = parse(body)
    except Malformed:
        return
    try:
        decoded = node(body)
    except Unreadable:
        return
    agree(accepted, decoded)


def test_the_messages_are_worth_it() -> None:
    """Else nothing above is tested: a good part is accepted, of each kind, and a good part is not."""
    accepted: Counter[str] = Counter()
    for seed in range(2000):
        try:
            envelope = parse(Writer(seed).body())
        except Malformed as error:
            accepted[error.reason] += 1
        else:
            accepted[envelope.method] += 1
            accepted["modern"] += envelope.modern
    for method in (*METHODS, "modern", "duplicate_key", "ambiguous_key", "malformed_json", "invalid_params"):
        assert accepted[method] > 20, method


# -- through the lane ------------------------------------------------------------------------------

ACCESS = ServerAccess(
    tools={"forbidden": "deny"}, prompts={"forbidden": "deny"}, resources={"file:///secret/*": "deny"}
)


class Runner:
    """An upstream that runs what it reads, by the official SDK's models and by a parser for which the last
    of two keys wins."""

    def __init__(self, allowed: MayUse) -> None:
        self._allowed = allowed
        self.ran: list[tuple[str, list[tuple[Kind, Any]]]] = []

    async def __call__(self, exchange: Exchange) -> None:
        message = json_readers.python(exchange.body)
        for kind, name in acts_on(message):
            assert self._allowed(kind, name), f"the upstream ran the {kind} {name!r}"
        try:
            request = JSONRPCRequest.model_validate_json(exchange.body)
            assert request.method == message["method"]
            assert acts_on({"method": request.method, "params": request.params}) == acts_on(message)
        except ValidationError:
            pass  # a notification, or an answer
        self.ran.append((message.get("method", "response"), acts_on(message)))
        await exchange.answer(b"", 202)


@pytest.fixture
async def runner(house: House) -> Runner:
    group = Group(version=2, id="default", name="E", servers={"demo": ACCESS})
    await house.put(group)
    house.upstream.script = runner = Runner(may_use(house.gateway.follower.tables, group, "demo"))
    return runner


@fuzzed(300)
@given(messages)
async def test_what_reaches_the_upstream_is_allowed_and_recorded_as_it_ran(
    house: House, runner: Runner, body: bytes
) -> None:
    recorded, ran = len(house.records()), len(runner.ran)
    async with asyncio.timeout(10):
        response = await house.post(body)
    await eventually(lambda: len(house.records()) == recorded + 1)
    record = house.records()[-1]
    assert response.status_code < 500, "no crash"
    assert len(runner.ran) == ran + (record["status"] == "ok"), (
        "what was forwarded is recorded so, and only that"
    )
    assert (record["status"] == "denied") == (len(runner.ran) == ran)
    if len(runner.ran) > ran:
        method, subjects = runner.ran[-1]
        assert record["method"] == method
        assert record["tool"] == (subjects[0][1] if len(subjects) == 1 else "")


async def test_the_lane_test_is_worth_it(house: House, runner: Runner) -> None:
    """A request that our parser got wrong would fail the test above."""
    url, headers = house.upstream.url, {"content-type": "application/json"}
    allowed = house.message("tools/call", {"name": "echo"})
    assert (await house.client.post(url, content=allowed, headers=headers)).status_code == 202
    for body in (
        house.message("tools/call", {"name": "forbidden"}),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"forbidden"}}',
    ):
        try:
            response = await house.client.post(url, content=body, headers=headers)
        except httpx2.HTTPError:
            continue
        assert response.status_code == 500
