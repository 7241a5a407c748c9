"""Processes that are measured: starting them, and what they use."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds of CPU time that a process has used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: list[str], core: int | None = None, log: Path | None = None, **environment: str
) -> Iterator[int]:
    """The process id of `command`, which runs on `core` alone if one is given, and may write to `log`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    with (
        (log or Path(os.devnull)).open("ab") as out,
        subprocess.Popen(
            command, env=clean | environment, stdout=out, stderr=out if log else None
        ) as process,
    ):
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield process.pid
        finally:
            process.terminate()
