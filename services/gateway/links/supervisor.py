"""Runs a program and ends everything that it started, as soon as the program or whoever asked for it ends.

    python -I -S supervisor.py LIFELINE OPEN_FILES ADDRESS_SPACE TASKS PROGRAM [ARGUMENT...]

LIFELINE is a descriptor, one end of a socket pair. A byte on it sends SIGTERM to the program's process
group. Its end, which comes however the other side dies, kills the program and all its descendants. The limits
(setrlimit(2)) are those of the program, 0 for none.

On Linux it is a "child subreaper" (prctl(2)): descendants that lost their parent become its own children, so
that none escapes by forking twice or by a session of its own. Elsewhere only the process group is ended.
It ends as the program ended, with the same status or by the same signal, once nothing of it is left.

A program of its own, because nothing in a process that was killed can end another. It imports nothing but the
standard library, and little of that, because it runs at each start and as long as the program.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
CANNOT_RUN = 127  # as shells have it
WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ON_LINUX = sys.platform == "linux"


def main() -> None:
    """Supervise until the program has ended."""
    lifeline = socket.socket(fileno=int(sys.argv[1]))
    lifeline.set_inheritable(False)
    close_beyond_streams(lifeline.fileno())
    wake = watch_signals()
    if ON_LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = start(sys.argv[5:], [int(limit) for limit in sys.argv[2:5]])
    let_go_of_streams()
    status = supervise(pid, lifeline, wake)
    end_descendants(pid)
    end_as(status)


def close_beyond_streams(kept: int) -> None:
    """Close every descriptor that was inherited but `kept`: not all who start processes see to that."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(3, kept)
    os.closerange(kept + 1, most if most != resource.RLIM_INFINITY else 1 << 20)


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def watch_signals() -> socket.socket:
    """A socket on which the number of each signal arrives that matters here."""
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
    for number in WATCHED:
        signal.signal(number, lambda *_: None)
    return wake


def start(command: list[str], limits: list[int]) -> int:
    """The process id of the program, which leads a process group of its own."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        become(command, limits, parent)
    with contextlib.suppress(OSError):  # it runs already, or has ended
        os.setpgid(pid, pid)  # in both, so that it holds whoever comes first
    return pid


def become(command: list[str], limits: list[int], parent: int) -> NoReturn:
    """Turn into the program."""
    try:
        os.setpgid(0, 0)
        if ON_LINUX:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            if os.getppid() != parent:
                os._exit(1)
            be_first_to_go()
        confine(limits)
        for number in (*WATCHED, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 (that is its purpose)
    except (OSError, ValueError) as error:
        os.write(2, f"{command[0]} cannot be run: {error}\n".encode())
    finally:
        os._exit(CANNOT_RUN)


def be_first_to_go() -> None:
    """When memory runs out, the program goes before whoever runs it (proc_pid_oom_score_adj(5))."""
    with contextlib.suppress(OSError):  # no such file here, or not ours to write
        Path("/proc/self/oom_score_adj").write_text("500")


def confine(limits: list[int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_NPROC)
    for kind, limit in zip(kinds, limits, strict=True):
        _, most = resource.getrlimit(kind)
        if limit:
            possible = limit if most == resource.RLIM_INFINITY else min(limit, most)
            resource.setrlimit(kind, (possible, possible))


def let_go_of_streams() -> None:
    """The program's streams are not ours, or nobody would see that it closed them."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def supervise(pid: int, lifeline: socket.socket, wake: socket.socket) -> int | None:
    """How the program ended (wait(2)); None if it has not and must."""
    events = select.poll()  # select(2) knows no descriptor from 1024 on, and the lifeline's may be any
    for end in (lifeline, wake):
        events.register(end, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in events.poll()}
        if wake.fileno() in ready and set(wake.recv(256)) - {signal.SIGCHLD}:
            return None  # somebody ends us
        status = reap(pid)
        if status is not None:
            return status
        if lifeline.fileno() in ready:
            if not received(lifeline):
                return None
            with contextlib.suppress(OSError):  # none of the group is left, and we shall hear of it
                os.killpg(pid, signal.SIGTERM)


def received(lifeline: socket.socket) -> bytes:
    try:
        return lifeline.recv(1)
    except ConnectionError:
        return b""


def reap(pid: int) -> int | None:
    """Collect what has ended; the status of `pid` if it is among it."""
    found = None
    try:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                return found
            if ended == pid:
                found = status
    except ChildProcessError:
        return found


def end_descendants(pid: int) -> None:
    """Kill until no child is left: children of a killed one become ours, and are next."""
    while True:
        for target, kill in [(pid, os.killpg), *((child, os.kill) for child in children())]:
            with contextlib.suppress(OSError):  # it is gone
                kill(target, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def children() -> list[int]:
    """The children of this process, those adopted included (Linux)."""
    if not ON_LINUX:
        return []
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it is gone
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == me:
                    found.append(int(entry.name))
    return found


def end_as(status: int | None) -> NoReturn:
    """End as the program did; None: by SIGKILL, as it was."""
    number = signal.SIGKILL if status is None else os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status or 0))


if __name__ == "__main__":
    main()
