"""`lockgate` as a process."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2

LOCKGATE = Path(sys.executable).with_name("lockgate")
START_WITHIN = 90.0  # seconds
STOP_WITHIN = 20.0


def environment(**values: object) -> dict[str, str]:
    """The environment without our own variables, and `values` as LOCKGATE_*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    return clean | {f"LOCKGATE_{name.upper()}": str(value) for name, value in values.items()}


@dataclass
class Process:
    """A `lockgate` process, which a test may kill and start again."""

    command: list[str]
    env: dict[str, str]
    url: str
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(LOCKGATE), *self.command], env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
        await self.until_ready()

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_WITHIN), httpx2.AsyncClient() as client:
            while True:
                assert self.process and self.process.poll() is None, self.output
                try:
                    if (await client.get(f"{self.url}/readyz", timeout=5)).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: nothing is said goodbye to."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text()
