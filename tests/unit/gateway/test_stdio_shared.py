"""Many sessions over one legacy process: each gets what is its own, and nothing of the others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import always
from tests.conftest import eventually
from tests.unit.gateway.links_made import Talk, notification, request, text
from tests.unit.gateway.stdio_made import REAL, World, by_hand, real, world


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def talk(at: World, user: str = "alice") -> Talk:
    """A session that has begun."""
    reached = await at.reach(user)
    assert reached.era == "legacy" and reached.open
    session = Talk().open(reached.open)
    await session.begin()
    return session


async def ask(session: Talk, id: Any, method: str, **params: Any) -> Any:
    await session.say(request(id, method, **params))
    return (await session.answer(id)).get("result")


async def heard(session: Talk, method: str) -> list[dict[str, Any]]:
    """The messages of this method that the process has heard so far, in order."""
    id = f"heard-{len(session.raw)}"
    return [m for m in (await ask(session, id, "heard"))["heard"] if m.get("method") == method]


async def test_everybody_shares_one_process_of_a_shared_server(at: World) -> None:
    at.put(by_hand())
    sessions = [await talk(at, user) for user in ("alice", "bob", "alice")]
    pids = {(await ask(session, "x", "surroundings"))["pid"] for session in sessions}
    assert len(pids) == len(at.running()) == 1
    assert len(await heard(sessions[0], "initialize")) == 1


async def test_initialize_is_answered_from_that_of_the_process_with_all_that_it_said(at: World) -> None:
    at.put(by_hand())
    reached = await at.reach()
    assert reached.open
    session = Talk().open(reached.open)
    result = await session.begin()
    assert result["x-unknown"] == 2**70 and result["serverInfo"]["name"] == "by hand"
    assert result["asked"]["capabilities"] == {}, "the process knows nobody who could be asked"
    assert result["capabilities"]["tasks"] == {"cancel": {}}, "a list would show the tasks of all"


@pytest.mark.parametrize(
    ("wanted", "given"),
    [("2024-11-05", "2024-11-05"), ("2025-11-25", "2025-11-25"), ("2199-01-01", "2025-11-25")],
)
async def test_the_version_is_the_clients_if_the_process_contains_it(
    at: World, wanted: str, given: str
) -> None:
    at.put(by_hand())
    session = await talk(at)
    again = await ask(session, 50, "initialize", protocolVersion=wanted, capabilities={})
    assert again["protocolVersion"] == given


async def test_the_same_ids_and_tokens_of_many_sessions_do_not_mix(at: World) -> None:
    at.put(by_hand())
    sessions = [await talk(at, user) for user in ("alice", "bob", "alice", "bob")]
    for number, session in enumerate(sessions):
        meta = {"progressToken": "token", "x-unknown": 2**70}
        await session.say(request(7, "hold", who=number, _meta=meta))
    await ask(sessions[0], 8, "release")
    for number, session in enumerate(sessions):
        result = (await session.answer(7))["result"]["held"]
        assert result["who"] == number and result["_meta"]["x-unknown"] == 2**70
        tokens = [m["params"]["progressToken"] for m in session.of("notifications/progress")]
        assert tokens == ["token"]


async def test_a_token_made_up_to_look_like_that_of_another_session_is_renamed_too(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await alice.say(request(1, "hold", _meta={"progressToken": "alice's"}))
    given = (await heard(alice, "hold"))[0]["params"]["_meta"]["progressToken"]
    raw = b'{"jsonrpc":"2.0","id":2,"method":"hold","params":{"_meta":{"progress\\u0054oken":%d}}}' % given
    await bob.say(raw)
    await ask(alice, 3, "release")
    await bob.answer(2)
    assert [m["params"]["progressToken"] for m in alice.of("notifications/progress")] == ["alice's"]
    assert [m["params"]["progressToken"] for m in bob.of("notifications/progress")] == [given]


async def test_a_cancellation_reaches_the_request_of_that_session_only(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await alice.say(request("same", "hold"))
    await bob.say(request("same", "hold"))
    [of_alice, _] = [m["id"] for m in await heard(alice, "hold")]
    await alice.say(notification("notifications/cancelled", requestId="same", reason="enough"))
    await bob.say(notification("notifications/cancelled", requestId="other"))
    [cancelled] = await heard(alice, "notifications/cancelled")
    assert cancelled["params"] == {"requestId": of_alice, "reason": "enough"}
    await ask(bob, "r", "release")
    assert (await bob.answer("same"))["result"]
    assert [m for m in alice.messages if m.get("id") == "same"] == [], "an answer after all is dropped"


async def test_what_the_server_asks_a_client_is_refused_and_a_ping_answered(at: World) -> None:
    at.put(by_hand())
    session = await talk(at)
    questions = [{"id": "q1", "method": "roots/list"}, {"id": "q2", "method": "ping"}]
    await ask(session, 5, "tell", messages=questions)
    answers = (await ask(session, 6, "heard"))["heard"]
    by_id = {m["id"]: m for m in answers if "method" not in m}
    assert by_id["q1"]["error"]["code"] == -32601 and "several sessions" in by_id["q1"]["error"]["message"]
    assert by_id["q2"]["result"] == {}
    assert session.of("roots/list") == []


async def test_changes_of_lists_reach_every_session(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await ask(alice, 5, "tell", messages=[{"method": "notifications/tools/list_changed"}])
    await ask(bob, 5, "ping")
    for session in (alice, bob):
        assert len(session.of("notifications/tools/list_changed")) == 1


async def test_updates_reach_who_subscribed_and_the_last_to_leave_unsubscribes(at: World) -> None:
    at.put(by_hand())
    alice, bob, carol = await talk(at, "alice"), await talk(at, "bob"), await talk(at, "alice")
    await ask(alice, 5, "resources/subscribe", uri="demo://a")
    await ask(bob, 5, "resources/subscribe", uri="demo://a")
    update = [
        {"method": "notifications/resources/updated", "params": {"uri": uri}}
        for uri in ("demo://a/part", "demo://ab")
    ]
    await ask(alice, 6, "tell", messages=update)
    await ask(bob, 6, "ping")
    uris = [
        [m["params"]["uri"] for m in s.of("notifications/resources/updated")] for s in (alice, bob, carol)
    ]
    assert uris == [["demo://a/part"], ["demo://a/part"], []]
    await ask(alice, 7, "resources/unsubscribe", uri="demo://a")
    assert await heard(carol, "resources/unsubscribe") == []
    await bob.session.close()
    [last] = await heard(carol, "resources/unsubscribe")
    assert last["params"] == {"uri": "demo://a"}


async def test_a_subscription_that_the_check_refused_is_none(at: World) -> None:
    def refuse() -> None:
        raise UpstreamFailed("resource_denied", "not yours")

    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await ask(bob, 4, "resources/subscribe", uri="demo://a")
    with pytest.raises(UpstreamFailed, match="not yours"):
        await alice.session.send(request(5, "resources/subscribe", uri="demo://a"), refuse)
    update = {"method": "notifications/resources/updated", "params": {"uri": "demo://a"}}
    await ask(bob, 6, "tell", messages=[update])
    await ask(alice, 6, "ping")
    assert alice.of("notifications/resources/updated") == []


async def test_the_most_verbose_level_is_asked_for_and_each_hears_its_own(at: World) -> None:
    at.put(by_hand())
    quiet, loud, silent = await talk(at), await talk(at), await talk(at)
    await ask(quiet, 5, "logging/setLevel", level="error")
    await ask(loud, 5, "logging/setLevel", level="debug")
    await ask(quiet, 6, "logging/setLevel", level="warning")
    levels = [m["params"]["level"] for m in await heard(quiet, "logging/setLevel")]
    assert levels == ["error", "debug", "debug"]
    logs = [
        {"method": "notifications/message", "params": {"level": level, "data": level}}
        for level in ("debug", "info", "error")
    ]
    await ask(quiet, 7, "tell", messages=logs)
    await ask(loud, 7, "ping")
    await ask(silent, 7, "ping")
    told = [[m["params"]["data"] for m in s.of("notifications/message")] for s in (quiet, loud, silent)]
    assert told == [["error"], ["debug", "info", "error"], ["info", "error"]]


async def test_log_messages_reach_no_session_once_several_people_have_shared_the_process(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await bob.session.close()
    log = {"method": "notifications/message", "params": {"level": "error", "data": "about bob's call"}}
    await ask(alice, 5, "tell", messages=[log])
    assert alice.of("notifications/message") == []
    assert "about bob's call" in at.errors()[-1]


async def test_the_status_of_a_task_reaches_the_session_that_created_it(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    meta = {"progressToken": "long"}
    await ask(alice, 5, "tools/call", task="t1", _meta=meta)
    token = (await heard(alice, "tools/call"))[0]["params"]["_meta"]["progressToken"]
    news = [
        {"method": "notifications/tasks/status", "params": {"taskId": "t1", "status": "working"}},
        {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}},
    ]
    await ask(bob, 6, "tell", messages=news)
    await ask(alice, 6, "ping")
    assert [m["params"]["taskId"] for m in alice.of("notifications/tasks/status")] == ["t1"]
    assert [m["params"]["progressToken"] for m in alice.of("notifications/progress")] == ["long"]
    assert bob.of("notifications/tasks/status") == bob.of("notifications/progress") == []
    await bob.say(request(7, "tasks/list"))
    assert (await bob.answer(7))["error"]["code"] == -32601


async def test_a_closed_session_cancels_what_it_waits_for_and_hears_nothing_more(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await alice.say(request(5, "hold"))
    await heard(alice, "hold")
    count = len(alice.raw)
    await alice.session.close()
    await alice.session.close()
    assert len(await heard(bob, "notifications/cancelled")) == 1
    await ask(bob, 5, "tell", messages=[{"method": "notifications/tools/list_changed"}])
    assert len(alice.raw) == count and alice.closed == []
    with pytest.raises(UpstreamFailed):
        await alice.session.send(request(6, "ping"), always)


async def test_the_end_of_the_process_ends_every_session_once(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    await alice.say(request(5, "crash", status=9))
    await eventually(lambda: alice.closed and bob.closed)
    assert [f.detail for f in alice.closed + bob.closed] == ["its process exited with status 9"] * 2


async def test_one_session_that_floods_does_not_keep_another_from_its_answers(at: World) -> None:
    at.put(by_hand())
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    flooding = asyncio.create_task(alice.say(request(5, "flood", times=20_000)))
    assert await ask(bob, 5, "ping") == {}
    await flooding
    await alice.answer(5)
    assert len(bob.of("notifications/tools/list_changed")) == 20_000


async def test_params_that_are_no_object_are_refused(at: World) -> None:
    at.put(by_hand())
    session = await talk(at)
    await session.say(b'{"jsonrpc":"2.0","id":5,"method":"echo","params":[1]}')
    assert (await session.answer(5))["error"]["code"] == -32602


async def test_a_real_server_is_shared_with_progress_cancellation_and_errors(at: World) -> None:
    at.put(real("legacy"), environment=REAL)
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    slow = await alice.begin_call("slow")
    counting = await bob.begin_call("count", to=3)
    assert text((await bob.answer(counting))["result"]) == "counted to 3"
    tokens = {m["params"]["progressToken"] for m in bob.of("notifications/progress")}
    assert tokens == {f"token-{counting}"}
    await eventually(lambda: alice.of("notifications/progress"))
    await alice.say(notification("notifications/cancelled", requestId=slow))
    assert (await bob.call("fail"))["isError"] is True
    assert text(await alice.call("echo", text="still there")) == "still there"
