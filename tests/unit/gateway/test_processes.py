"""Which processes there are of stdio servers: whose, how many, how long, and how they come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.common.bus import Bus
from libs.common.control.entries import Org, User
from libs.common.requests import LIST_PROCESSES, ListProcesses, ProcessList
from libs.common.settings import Settings
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import NONE
from services.gateway.links.port import always
from tests.conftest import Nats, eventually
from tests.unit.gateway.links_made import Talk, modern, request
from tests.unit.gateway.stdio_made import SECRET, World, alive, by_hand, world


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def talk(at: World, user: str = "alice", **options: Any) -> Talk:
    """A session that has begun."""
    reached = await at.reach(user, **options)
    assert reached.open
    session = Talk().open(reached.open)
    await session.begin()
    return session


async def ask(session: Talk, method: str, **params: Any) -> Any:
    id = f"{method}-{len(session.raw)}"
    await session.say(request(id, method, **params))
    return (await session.answer(id))["result"]


# -- whose ----------------------------------------------------------------------------------------


async def test_a_server_with_a_process_for_each_user_has_one_for_all_sessions_of_a_user(at: World) -> None:
    at.put(by_hand(), processes="user")
    sessions = [await talk(at, user) for user in ("alice", "bob", "alice")]
    pids = [(await ask(session, "surroundings"))["pid"] for session in sessions]
    assert pids[0] == pids[2] != pids[1]
    assert sorted(report.user for report in at.running()) == ["alice", "bob"]


async def test_a_shared_server_with_the_users_own_credentials_has_one_for_each_user(at: World) -> None:
    at.put(by_hand(), auth="api_key")
    for user in ("alice", "bob"):
        key, opened = at.credential(user, secret=f"{SECRET}-{user}")
        session = await talk(at, user, credential=key, opened=opened)
        found = await ask(session, "surroundings")
        assert "TOKEN" in found["environment"] and SECRET not in str(found), "given, and not given back"
    assert sorted(report.user for report in at.running()) == ["alice", "bob"]


async def test_a_shared_server_with_the_organizations_credential_has_one(at: World) -> None:
    at.put(by_hand(), auth="api_key")
    key, opened = at.credential("organization")
    for user in ("alice", "bob"):
        await talk(at, user, credential=key, opened=opened)
    assert [report.user for report in at.running()] == [""]


async def test_people_have_working_directories_of_their_own(at: World) -> None:
    at.put(by_hand(), processes="user")
    directories = {
        (await ask(await talk(at, user), "surroundings"))["directory"] for user in ("alice", "bob")
    }
    assert len(directories) == 2
    assert all(Path(directory).stat().st_mode & 0o777 == 0o700 for directory in directories)


async def test_the_directory_of_a_session_goes_with_it(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    directory = Path((await ask(session, "surroundings"))["directory"])
    assert directory.is_dir()
    await session.session.close()
    await eventually(lambda: not directory.exists())


async def test_those_who_come_while_it_starts_wait_for_the_same_process(at: World) -> None:
    at.put(by_hand("slow"))
    await asyncio.gather(*(talk(at, user) for user in ("alice", "bob", "alice", "bob")))
    assert len(at.reports()) == 1


async def test_who_leaves_while_it_starts_does_not_end_the_start(at: World) -> None:
    at.put(by_hand("slow"))
    impatient = asyncio.create_task(at.reach())
    await eventually(at.running)
    impatient.cancel()
    await eventually(lambda: at.running()[0].state == "running")


# -- what it speaks -------------------------------------------------------------------------------


async def test_a_server_that_is_silent_at_the_question_is_asked_the_old_way(
    at: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.links.handshake.PATIENCE", 0.2)
    at.put(by_hand("silent"))
    assert (await at.reach()).era == "legacy"


async def test_a_server_that_ends_at_the_question_is_started_again_and_asked_the_old_way(at: World) -> None:
    at.put(by_hand("rude"))
    session = await talk(at)
    assert (await ask(session, "heard"))["heard"][0]["method"] == "initialize"


async def test_what_is_known_of_a_server_is_not_asked_again(at: World) -> None:
    at.put(by_hand("rude"), idle_stop=0.1)
    session = await talk(at)
    await session.session.close()
    await eventually(lambda: not at.running())
    at.processes._backoffs.clear()
    session = await talk(at)
    assert [m["method"] for m in (await ask(session, "heard"))["heard"]][:2] == [
        "initialize",
        "notifications/initialized",
    ]
    assert "expected initialize" not in at.errors()


async def test_a_server_that_says_nothing_at_all_is_given_up(tmp_path: Path) -> None:
    async with world(tmp_path, gateway_stdio_start_timeout=0.5) as at:
        at.put(["sleep", "600"])
        with pytest.raises(UpstreamFailed, match=r"did not say within 0\.5 s") as failed:
            await at.reach()
        assert failed.value.reason == "upstream_timeout"
        assert at.running() == []


async def test_a_program_that_only_repeats_what_it_hears_speaks_no_mcp(at: World) -> None:
    at.put(["cat"])
    with pytest.raises(UpstreamFailed, match=r"did not say|no revision") as failed:
        async with asyncio.timeout(30):
            at.processes._timeouts = type(at.processes._timeouts)(start=0.5, write=1.0)
            await at.reach()
    assert failed.value.reason in {"upstream_timeout", "upstream_bad_answer"}


# -- coming and going -----------------------------------------------------------------------------


async def test_a_process_that_nobody_uses_is_stopped_and_comes_back_on_demand(at: World) -> None:
    at.put(by_hand(), idle_stop=0.2)
    session = await talk(at)
    [before] = at.running()
    await asyncio.sleep(1.3)  # longer than idle_stop and a round of the sweeper: it is in use all the while
    assert at.running() == [before]
    await session.session.close()
    await eventually(lambda: not at.running())
    await eventually(lambda: not alive(before.pid or 0))
    await talk(at)
    [after] = at.running()
    assert after.pid != before.pid


async def test_one_that_ended_is_started_again_on_the_next_demand(
    at: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.links.backoff.STEADY", 0.0)
    at.put(by_hand())
    session = await talk(at)
    await session.say(request(5, "crash"))
    await eventually(lambda: session.closed)
    await ask(await talk(at), "ping")


async def test_one_that_keeps_ending_is_left_alone_for_longer_and_longer(
    at: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.links.backoff.FIRST", 0.1)
    at.put(by_hand("broken"))
    pauses = []
    for _ in range(3):
        with pytest.raises(UpstreamFailed, match=r"exited with status 1$"):
            await at.reach()
        [report] = at.reports()
        pauses.append(report.retry_in)
        with pytest.raises(UpstreamFailed, match="exited with status 1; it is tried again in") as failed:
            await at.reach()
        assert failed.value.reason == "upstream_unreachable"
        assert report.state == "backing_off"
        assert "no such module" in report.errors[-1] and "no such module" not in failed.value.detail
        await eventually(lambda: not at.reports()[0].retry_in)
    assert pauses[0] < pauses[1] < pauses[2]


async def test_sessions_of_a_program_that_ends_are_left_alone_together(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    await session.say(request(5, "crash"))
    await eventually(lambda: session.closed)
    await session.session.close()
    reached = await at.reach()
    assert reached.open
    with pytest.raises(UpstreamFailed, match="it is tried again in"):
        await Talk().open(reached.open).session.start()


# -- what the administrator decides ---------------------------------------------------------------


async def test_commands_are_not_run_where_that_is_not_switched_on(tmp_path: Path) -> None:
    async with world(tmp_path, gateway_stdio="off") as at:
        at.put(by_hand())
        with pytest.raises(UpstreamFailed, match="LOCKGATE_GATEWAY_STDIO=on") as failed:
            await at.reach()
        assert failed.value.reason == "stdio_disabled" and at.reports() == []


async def gone(at: World, session: Talk) -> None:
    """The session ended at once, and its process and all its children are gone soon."""
    assert [failure.reason for failure in session.closed] == ["upstream_broke_off"]
    assert at.running() == []


@pytest.mark.parametrize("change", ["removed", "disabled", "command", "environment", "processes"])
async def test_a_change_of_the_server_kills_its_process_with_all_its_children(at: World, change: str) -> None:
    server = at.put(by_hand("stubborn"))
    session = await talk(at)
    children = (await ask(session, "fork"))["children"]
    [report] = at.running()
    if change == "removed":
        at.remove()
    else:
        changes: dict[str, dict[str, Any]] = {
            "disabled": {"enabled": False},
            "command": {"command": by_hand("legacy")},
            "environment": {"environment": {"REGION": "us"}},
            "processes": {"processes": "user"},
        }
        at.tables.servers["demo"] = msgspec.structs.replace(server, version=2, **changes[change])
        at.processes.review("server.demo", b"", 2)
    await gone(at, session)
    await eventually(lambda: not any(map(alive, [*children, report.pid or 0])), within=1.0)


async def test_a_change_of_something_else_leaves_it_alone(at: World) -> None:
    server = at.put(by_hand())
    session = await talk(at)
    [before] = at.running()
    at.tables.servers["demo"] = msgspec.structs.replace(server, version=2, tools={"echo": ""}, idle_stop=5.0)
    at.processes.review("server.demo", b"", 2)
    assert at.running() == [before]
    await ask(session, "ping")


async def test_a_new_version_of_the_credential_replaces_the_process(at: World) -> None:
    at.put(by_hand(), auth="api_key")
    key, opened = at.credential("organization")
    session = await talk(at, credential=key, opened=opened)
    key, renewed = at.credential("organization", version=2, secret="an0ther-secret")
    await gone(at, session)
    with pytest.raises(UpstreamFailed, match="changed meanwhile"):
        await at.reach(credential=key, opened=opened)
    await talk(at, credential=key, opened=renewed)
    assert len(at.running()) == 1


async def test_a_credential_that_is_taken_away_ends_the_process(at: World) -> None:
    at.put(by_hand(), auth="api_key")
    key, opened = at.credential("organization")
    session = await talk(at, credential=key, opened=opened)
    del at.tables.credentials[key]
    at.processes.review(f"credential.{key}", None, 2)
    await gone(at, session)


async def test_the_switch_of_the_organization_ends_every_process(at: World) -> None:
    at.put(by_hand())
    session = await talk(at)
    at.tables.org = Org(version=2, enabled=False)
    at.processes.review("org", b"", 2)
    await gone(at, session)


async def test_a_user_who_is_deactivated_loses_their_process_and_nobody_else(at: World) -> None:
    at.put(by_hand(), processes="user")
    alice, bob = await talk(at, "alice"), await talk(at, "bob")
    at.tables.users["alice"] = User(version=2, id="alice", email="alice@x.example", active=False)
    at.processes.review("user.alice", b"", 2)
    assert alice.closed and not bob.closed
    assert [report.user for report in at.running()] == ["bob"]


async def test_a_change_while_it_starts_ends_the_start(at: World) -> None:
    at.put(by_hand("slow"))
    starting = asyncio.create_task(at.reach())
    await eventually(at.running)
    at.remove()
    with pytest.raises(UpstreamFailed):
        await starting
    assert at.running() == []


async def test_a_change_between_two_attempts_to_start_ends_the_start(
    at: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.links.instance.log.warning", lambda *_, **__: at.remove())
    at.put(by_hand("rude"))
    with pytest.raises(UpstreamFailed, match="because the server or its credential changed"):
        await at.reach()
    assert at.running() == []


async def test_a_session_opened_before_a_change_starts_nothing_after_it(at: World) -> None:
    at.put(by_hand(), processes="session")
    reached = await at.reach()
    at.put(by_hand(), processes="session", environment={"REGION": "us"})
    assert reached.open
    with pytest.raises(UpstreamFailed, match="changed"):
        await Talk().open(reached.open).session.start()


# -- what an administrator asks of a server that is off -------------------------------------------


async def test_while_an_administrator_asks_a_server_that_is_off_nobody_else_reaches_it(at: World) -> None:
    at.put(by_hand(), enabled=False)
    async with at.processes.question("demo", "", NONE) as reach:
        assert (await reach()).era == "legacy"
        [report] = at.running()
        with pytest.raises(UpstreamFailed, match="it is off"):
            await at.reach()
    await eventually(lambda: not at.running())
    await eventually(lambda: not alive(report.pid or 0))


async def test_the_end_of_one_question_leaves_another_alone(at: World) -> None:
    at.put(by_hand(), enabled=False)
    async with at.processes.question("demo", "", NONE) as reach:
        await reach()
        [before] = at.running()
        async with at.processes.question("demo", "", NONE) as another:
            await another()
            assert len(at.running()) == 2
        await eventually(lambda: at.running() == [before])


async def test_of_earlier_questions_the_newest_is_kept_for_administrators(at: World) -> None:
    at.put(by_hand("broken"), enabled=False)
    for _ in range(2):
        at.processes._backoffs.clear()
        async with at.processes.question("demo", "", NONE) as reach:
            with pytest.raises(UpstreamFailed, match="exited with status 1"):
                await reach()
        [report] = at.reports()
        assert "no such module" in report.errors[-1]


async def test_a_question_does_not_keep_the_process_of_a_server_that_is_switched_off(at: World) -> None:
    server = at.put(by_hand())
    session = await talk(at)
    async with at.processes.question("demo", "", NONE) as reach:
        at.tables.servers["demo"] = msgspec.structs.replace(server, version=2, enabled=False)
        at.processes.review("server.demo", b"", 2)
        await gone(at, session)
        with pytest.raises(UpstreamFailed, match="it is off"):
            await reach()


async def test_a_change_of_the_command_ends_what_runs_for_a_question(at: World) -> None:
    at.put(by_hand(), enabled=False)
    async with at.processes.question("demo", "", NONE) as reach:
        await reach()
        at.put(by_hand("modern"), enabled=False)
        assert at.running() == []


async def test_nothing_runs_for_a_question_while_everything_is_switched_off(at: World) -> None:
    at.put(by_hand(), enabled=False)
    at.tables.org = Org(version=2, enabled=False)
    async with at.processes.question("demo", "", NONE) as reach:
        with pytest.raises(UpstreamFailed, match="everything is switched off"):
            await reach()
    assert at.reports() == []


# -- how many -------------------------------------------------------------------------------------


async def test_no_more_processes_run_than_may(tmp_path: Path) -> None:
    async with world(tmp_path, gateway_stdio_processes=2, gateway_stdio_user_processes=2) as at:
        at.put(by_hand(), processes="user")
        at.tables.users["carol"] = User(version=1, id="carol", email="carol@x.example")
        alice = await talk(at, "alice")
        await talk(at, "bob")
        with pytest.raises(UpstreamFailed, match="all 2 processes") as failed:
            await at.reach("carol")
        assert failed.value.reason == "upstream_busy"
        await alice.session.close()
        alices = next(i for i in at.processes._instances.values() if i.key.owner == "alice")
        await eventually(lambda: alices.idle >= 1.0)
        await talk(at, "carol")
        assert sorted(report.user for report in at.running()) == ["bob", "carol"], "room was made"


async def test_one_person_cannot_take_all_processes(tmp_path: Path) -> None:
    async with world(tmp_path, gateway_stdio_user_processes=2) as at:
        at.put(by_hand(), processes="session")
        sessions = [await talk(at), await talk(at)]
        with pytest.raises(UpstreamFailed, match="all 2 processes"):
            await talk(at)
        await talk(at, "bob")
        await sessions[0].session.close()
        await talk(at)


# -- what administrators see ----------------------------------------------------------------------


async def test_every_replica_answers_for_itself(nats: Nats, tmp_path: Path) -> None:
    async with world(tmp_path / "a") as one, world(tmp_path / "b") as other:
        buses = [Bus(Settings(nats_url=nats.url), "test") for _ in range(3)]
        for bus in buses:
            await bus.start()
        asking = buses[2]
        assert await asking.gather(LIST_PROCESSES, ListProcesses(), ProcessList) == [], "nobody is there"
        await one.processes.serve(buses[0], "replica-a")
        await other.processes.serve(buses[1], "replica-b")
        await buses[0].client.flush()
        await buses[1].client.flush()
        one.put(by_hand(), auth="api_key")
        key, opened = one.credential("organization")
        session = await talk(one, credential=key, opened=opened)
        await ask(session, "complain", lines=2, word=SECRET)
        await eventually(lambda: len(one.errors()) == 2)
        answers = await asking.gather(LIST_PROCESSES, ListProcesses(slug="demo"), ProcessList, 10.0, most=2)
        assert {answer.replica: len(answer.processes) for answer in answers} == {
            "replica-a": 1,
            "replica-b": 0,
        }
        [report] = next(answer.processes for answer in answers if answer.processes)
        assert report.state == "running" and report.errors == [
            f"line {n} " + "*" * len(SECRET) for n in (0, 1)
        ]
        some = await asking.gather(LIST_PROCESSES, ListProcesses(slug="other"), ProcessList, within=0.3)
        assert [answer.processes for answer in some] == [[], []]
        for bus in buses:
            await bus.stop()


async def test_one_that_ended_is_shown_with_its_last_words(at: World) -> None:
    at.put(by_hand())
    session = await talk(at)
    await session.say(request(5, "crash"))
    await eventually(lambda: session.closed)
    [report] = at.reports()
    assert (report.state, report.ending, report.errors) == (
        "backing_off",
        "exited with status 3",
        ["out of luck"],
    )
    assert report.pid is None and report.started


async def test_stopping_ends_everything_and_starts_nothing_more(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.put(by_hand("modern"))
        reached = await at.reach(client="modern")
        assert reached.endpoint
        waiting = asyncio.create_task(reached.endpoint.request(modern(1, "hold"), print, always))
        while "hold" not in json.dumps(await heard(at)):
            pass
        await at.processes.stop()
        with pytest.raises(UpstreamFailed, match="the gateway is stopping"):
            await waiting
        with pytest.raises(UpstreamFailed, match="the gateway is stopping"):
            await at.reach()
        assert at.running() == []


async def heard(at: World) -> Any:
    reached = await at.reach(client="modern")
    assert reached.endpoint
    return json.loads(await reached.endpoint.request(modern(2, "heard"), print, always))["result"]
