"""MCP servers that tests start, each a real process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import await_port, free_port


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[str]:
    """The origin of a server that is started by `python -m MODULE PORT ARGUMENTS`."""
    port = free_port()
    # What a revision deprecates, and these serve all the same, would be all that their output says.
    command = [sys.executable, "-W", "ignore", "-m", module, str(port), *arguments]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            await_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
