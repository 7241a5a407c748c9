"""Child processes: restarted when they die, gone when their parent is, never two on one directory."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.embedded.child import Child, ChildFailed, Program, end_orphan
from services.embedded.datadir import lock_file


async def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sleeper(directory: Path) -> Program:
    """A program that writes `up` to its log and waits."""
    script = "import time; print('up', flush=True); time.sleep(600)"

    async def ready() -> bool:
        log = directory / "sleeper.log"
        return log.exists() and "up" in log.read_text()

    return Program("sleeper", [sys.executable, "-c", script], directory, ready)


@contextlib.asynccontextmanager
async def running(program: Program) -> AsyncIterator[Child]:
    child = Child(program)
    await child.start()
    try:
        yield child
    finally:
        await child.stop()


async def test_a_child_is_ready_when_start_returns_and_gone_when_stop_does(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as child:
        pid = child.pid
        assert pid and alive(pid)
        assert (tmp_path / "sleeper.lock").read_text() == str(pid)
    assert not alive(pid)
    os.close(lock_file(tmp_path / "sleeper.lock"))  # free again


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as child:
        first = child.pid
        assert first
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: child.pid not in {None, first})


async def test_a_child_that_ignores_the_polite_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded.child.STOP_WITHIN", 0.1)
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    program = sleeper(tmp_path)
    stubborn = Program("sleeper", [sys.executable, "-c", script], tmp_path, program.ready)
    async with running(stubborn) as child:
        pid = child.pid
    assert pid and not alive(pid)


async def test_a_child_is_ended_even_if_its_supervision_failed(tmp_path: Path) -> None:
    program = sleeper(tmp_path)
    starts = 0

    async def ready() -> bool:
        nonlocal starts
        starts += 1
        if starts > 1:
            raise RuntimeError("a mistake in the probe")
        return True

    child = Child(Program("sleeper", program.command, tmp_path, ready))
    await child.start()
    first = child.pid
    assert first
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: starts > 1)
    second = child.pid
    assert second and alive(second)
    await child.stop()
    assert not alive(second)


async def test_a_child_that_ends_at_once_fails_the_start_with_its_last_words(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    command = [sys.executable, "-c", "import sys; sys.exit('no such disk')"]
    with pytest.raises(ChildFailed, match="no such disk"):
        await Child(Program("broken", command, tmp_path, never)).start()


async def test_a_child_that_never_gets_ready_fails_the_start_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded.child.READY_WITHIN", 0.3)

    async def never() -> bool:
        return False

    child = Child(Program("idle", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, never))
    with pytest.raises(ChildFailed, match="not ready after"):
        await child.start()
    assert child.pid is None


async def test_the_terminals_interrupt_does_not_reach_a_child(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as child:
        assert child.pid and os.getpgid(child.pid) != os.getpgid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_children_are_gone_after_their_parent_was_killed(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
import uvloop
from services.embedded.child import Child, Program

async def ready():
    return True

async def main():
    child = Child(Program("sleeper", ["sleep", "600"], Path(sys.argv[1]), ready))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert alive(pid)
        parent.kill()
    await eventually(lambda: not alive(pid))


async def test_an_orphan_of_an_earlier_run_is_ended_before_a_new_child_starts(tmp_path: Path) -> None:
    orphan = orphan_on(tmp_path)
    async with running(sleeper(tmp_path)) as child:
        assert child.pid != orphan.pid
        assert orphan.wait(5) == -signal.SIGTERM


async def test_the_process_whose_id_stands_in_an_unlocked_file_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:  # it got the id of a child that has ended
        (tmp_path / "sleeper.lock").write_text(str(stranger.pid))
        await end_orphan(tmp_path, "sleeper")
        assert stranger.poll() is None
        stranger.kill()


def orphan_on(directory: Path) -> "subprocess.Popen[bytes]":
    """A process that holds the lock of `sleeper` and has written its id there, as a child does."""
    descriptor = lock_file(directory / "sleeper.lock")
    try:
        orphan = subprocess.Popen(["sleep", "600"], pass_fds=[descriptor])
        os.pwrite(descriptor, str(orphan.pid).encode(), 0)
        return orphan
    finally:
        os.close(descriptor)
