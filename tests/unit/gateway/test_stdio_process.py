"""One child process: what it gets, what it may do, and that it ends with all that it started."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links import process
from services.gateway.links.port import always
from services.gateway.links.process import Limits, Process, Program
from services.gateway.redaction import Redactor
from tests.conftest import eventually
from tests.unit.gateway.links_made import request
from tests.unit.gateway.stdio_made import ROOT, alive, by_hand

LIMIT = 1024 * 1024
STOPPED = UpstreamFailed("upstream_broke_off", "it was stopped")


class Spoken:
    """A process, all that it said, and how it ended."""

    def __init__(self, program: Program) -> None:
        self.lines: list[bytes] = []
        self.ended: list[UpstreamFailed] = []
        self.process = Process(program, self.lines.append, self.ended.append)

    async def say(self, method: str, **params: Any) -> None:
        await self.process.write(request(1, method, **params), always, 5.0)

    async def ask(self, method: str, **params: Any) -> Any:
        """The result of a method, which is the next message."""
        before = len(self.lines)
        await self.say(method, **params)
        await eventually(lambda: len(self.lines) > before)
        return json.loads(self.lines[before])["result"]

    async def end(self) -> UpstreamFailed:
        """How it ended by itself."""
        await eventually(lambda: self.ended)
        assert len(self.ended) == 1
        return self.ended[0]


def program(directory: Path, begin: str = "legacy", **options: Any) -> Program:
    given: dict[str, Any] = {"command": by_hand(begin), "directory": directory, "limits": Limits(LIMIT)}
    return Program(**given | options)


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[Spoken]:
    spoken = Spoken(program)
    await spoken.process.start()
    pid = spoken.process.pid
    try:
        yield spoken
    finally:
        await spoken.process.stop(STOPPED)
        assert pid and not alive(pid)


async def test_a_process_answers_in_lines(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        assert await spoken.ask("echo", text="hällo") == {"echo": {"text": "hällo"}}


async def test_its_environment_is_a_short_list_and_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKGATE_GATEWAY_SESSION_KEY", "secret of the gateway")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("HOME", "/somewhere")
    async with running(program(tmp_path, environment={"REGION": "eu"})) as spoken:
        environment = (await spoken.ask("surroundings"))["environment"]
    assert environment["REGION"] == "eu" and environment["HOME"] == "/somewhere"
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "REGION"}
    assert set(environment) <= allowed


async def test_it_gets_a_directory_of_its_own_and_no_other_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        directory = tmp_path / "its own"
        directory.mkdir()
        async with running(program(directory)) as spoken:
            found = await spoken.ask("surroundings")
    assert found["directory"] == str(directory)
    assert found["descriptors"] == []


@contextmanager
def every_descriptor_open_below(number: int) -> Iterator[None]:
    """What is opened in here gets `number` or a higher one."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (max(soft, min(hard, 4 * number)), hard))
    try:
        with ExitStack() as stack:
            while stack.enter_context(Path(os.devnull).open()).fileno() < number - 1:
                pass
            yield
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))


async def test_it_starts_however_many_descriptors_we_have_open(tmp_path: Path) -> None:
    with every_descriptor_open_below(1024):  # the most that select(2) can wait for
        async with running(program(tmp_path)) as spoken:
            assert await spoken.ask("echo", text="here") == {"echo": {"text": "here"}}


async def test_its_resources_are_limited(tmp_path: Path) -> None:
    async with running(program(tmp_path, limits=Limits(LIMIT, open_files=64))) as spoken:
        found = await spoken.ask("surroundings")
    assert found["open files"] == [64, 64] and found["core"] == [0, 0]


async def test_a_command_that_is_not_there_is_said_to_be_not_found(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFailed, match="its command is not found") as failed:
        await Spoken(program(tmp_path, command=["no-such-program"])).process.start()
    assert failed.value.reason == "upstream_unreachable"


async def test_a_file_that_cannot_be_run_ends_with_a_word_to_the_administrator(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    async with running(program(tmp_path, command=[str(tmp_path / "text")])) as spoken:
        assert (await spoken.end()).detail == "its process exited with status 127"
        assert "cannot be run" in spoken.process.errors.lines()[0]


async def test_how_it_ended_is_told_by_status_or_signal(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("crash", status=7)
        failure = await spoken.end()
        assert (failure.reason, failure.detail) == (
            "upstream_broke_off",
            "its process exited with status 7",
        )
        assert spoken.process.errors.lines() == ["out of luck"]
    async with running(program(tmp_path)) as spoken:
        await spoken.say("shot")
        assert (await spoken.end()).detail == "its process was ended by SIGSEGV"


async def test_who_writes_to_an_ended_process_hears_how_it_ended(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("crash")
        await spoken.end()
        with pytest.raises(UpstreamFailed, match="exited with status 3"):
            await spoken.say("echo")


async def test_one_that_closes_its_output_is_ended(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("hang_up")
        assert (await spoken.end()).detail == "its process closed its output"


async def test_a_message_beyond_the_limit_ends_it(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("long", bytes=LIMIT + 1)
        failure = await spoken.end()
        assert failure.reason == "upstream_bad_answer"
        assert failure.detail == f"its process wrote a message of more than {LIMIT} bytes"
        assert spoken.lines == []


async def test_a_message_at_the_limit_passes(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        frame = len(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"echo": {"text": ""}}}))
        result = await spoken.ask("echo", text="x" * (LIMIT - frame))
        assert len(result["echo"]["text"]) == LIMIT - frame


async def test_one_that_reads_nothing_is_not_sent_more_than_so_much(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("deaf")
        line = request(1, "echo", text="x" * (LIMIT // 2))
        checks: list[int] = []

        async def write() -> str:
            try:
                await spoken.process.write(line, lambda: checks.append(1), within=0.5)
            except UpstreamFailed as failure:
                return failure.reason
            return "sent"

        outcomes = await asyncio.gather(*(write() for _ in range(8)))
        assert outcomes.count("sent") == len(checks) == 1
        assert set(outcomes) == {"sent", "upstream_timeout", "upstream_busy"}
        assert outcomes.count("upstream_timeout") == 1, "two halves of the limit, of which one is sent"


async def test_messages_of_our_own_are_dropped_where_nobody_reads(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.say("deaf")
        sent = [spoken.process.offer(b"x" * 100_000) for _ in range(30)]
        assert sent[0] and not sent[-1]
        assert sent.count(True) <= 13, "a megabyte, what the pipe holds, and the last one"


async def test_a_check_that_fails_keeps_the_line_from_leaving(tmp_path: Path) -> None:
    def refuse() -> None:
        raise UpstreamFailed("server_disabled", "it is off")

    async with running(program(tmp_path)) as spoken:
        with pytest.raises(UpstreamFailed, match="it is off"):
            await spoken.process.write(request(1, "echo"), refuse, 5.0)
        await spoken.ask("heard")
        assert [m["method"] for m in json.loads(spoken.lines[-1])["result"]["heard"]] == ["heard"]


async def test_much_standard_error_is_read_and_its_end_kept(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        await spoken.ask("complain", lines=50_000)
        await eventually(lambda: spoken.process.errors.lines()[-1:] == ["line 49999 "])
        assert len(spoken.process.errors.lines()) <= 200


async def test_who_floods_standard_error_has_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    go_on = asyncio.Event()

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await go_on.wait()

    monkeypatch.setattr(process, "wait", wait)
    lines = 30_000  # more than the pipe and the reader hold
    async with running(program(tmp_path)) as spoken:
        answer = asyncio.create_task(spoken.ask("complain", lines=lines, word="x" * 60))
        await eventually(lambda: waits)
        assert len(waits) == 1 and not answer.done(), "nothing more is read of it"
        go_on.set()
        await answer
        written = sum(len(f"line {number} {'x' * 60}\n") for number in range(lines))
        await eventually(lambda: round(sum(waits) * process.ERRORS_RATE) == written)


async def test_the_credential_is_taken_out_of_all_that_it_writes(tmp_path: Path) -> None:
    secret = 'pässword"1'
    redactor = Redactor([(b"TOKEN", secret.encode())])
    options: dict[str, Any] = {"environment": {"TOKEN": secret}, "redactor": redactor}
    async with running(program(tmp_path, **options)) as spoken:
        await spoken.ask("complain", lines=1, word=secret)
        assert secret not in str(await spoken.ask("surroundings"))
        await eventually(spoken.process.errors.lines)
        assert spoken.process.errors.lines() == ["line 0 " + "*" * len(secret.encode())]


@pytest.mark.parametrize("begin", ["legacy", "stubborn"])
async def test_stopping_ends_it_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    monkeypatch.setattr("services.gateway.links.process.STEPS", (0.3, 0.3, 2.0))
    async with running(program(tmp_path, begin)) as spoken:
        children = (await spoken.ask("fork"))["children"]
        assert len(children) == 3 and all(map(alive, children))
    assert not any(map(alive, children))
    assert spoken.ended == [], "it was we who ended it"
    assert spoken.process.ending == ("exited with status 0" if begin == "legacy" else "was ended by SIGKILL")


async def test_killing_ends_it_with_all_its_children_at_once(tmp_path: Path) -> None:
    async with running(program(tmp_path, "stubborn")) as spoken:
        children = (await spoken.ask("fork"))["children"]
        spoken.process.kill(STOPPED)
        await eventually(lambda: not any(map(alive, children)), within=1.0)


async def test_what_it_left_behind_is_ended_when_it_ends(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as spoken:
        children = (await spoken.ask("fork"))["children"]
        await spoken.say("crash")
        await spoken.end()
        assert not any(map(alive, children))


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are adopted on Linux only")
async def test_killing_the_gateway_leaves_nothing(tmp_path: Path) -> None:
    script = """
import asyncio, json, sys
from pathlib import Path
import uvloop
from services.gateway.links.port import always
from services.gateway.links.process import Limits, Process, Program

async def main():
    program = Program(json.loads(sys.argv[1]), Path(sys.argv[2]), Limits(65536))
    def on_line(line):
        children = json.loads(line)["result"]["children"]
        print(json.dumps([process.pid, *children]), flush=True)
    process = Process(program, on_line, print)
    await process.start()
    await process.write(b'{"jsonrpc":"2.0","id":1,"method":"fork"}', always, 5)
    await asyncio.Event().wait()

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""
    command = [sys.executable, "-c", script, json.dumps(by_hand("stubborn")), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as gateway:
        assert gateway.stdout
        pids = json.loads(await asyncio.to_thread(gateway.stdout.readline))
        assert len(pids) == 4 and all(map(alive, pids))
        gateway.send_signal(signal.SIGKILL)
    await eventually(lambda: not any(map(alive, pids)))
