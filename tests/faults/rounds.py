"""One round: something is switched off while something goes wrong; all converge; it is switched on again."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx2

from libs.common.clock import elapsed
from tests.faults.disturbances import DISTURBANCES
from tests.faults.fleet import Fleet
from tests.faults.levels import LEVELS, Change, Request
from tests.faults.load import Call, Outcome

CONVERGED_WITHIN = 90.0  # seconds; reconciliation comes every 30
FOREVER = float("inf")


@dataclass
class Window:
    """From the 200 until it is asked to come on again, a call of this kind must not arrive."""

    title: str
    change: Change
    since: float
    until: float = FOREVER


@dataclass
class Ledger:
    """What was promised, and how often what happened."""

    windows: list[Window] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    receipts: list[float] = field(default_factory=list)  # seconds from question to 200
    _read: int = 0  # bytes of the upstream's record that have been checked

    def count(self, what: str, which: str) -> None:
        self.counts.setdefault(what, Counter())[which] += 1

    def broken(self, calls: list[Call], upstream: Path) -> list[str]:
        """The calls that reached the upstream since the last look, were forbidden by then, and started after
        the 200."""
        with upstream.open("rb") as file:
            file.seek(self._read)
            record = file.read()
        whole = record[: record.rfind(b"\n") + 1]
        self._read += len(whole)
        found = []
        for line in whole.splitlines():
            number, at = int(line.split()[0]), float(line.split()[1])
            call = calls[number]
            for window in self.windows:
                if window.since < call.started and at < window.until and window.change.forbids(call):
                    late = f"started {call.started - window.since:.3f} s after the 200, {call.outcome}"
                    found.append(f"{window.title}: call {number} of {call.caller.email} {late}")
        return found


class Rounds:
    def __init__(self, fleet: Fleet, chance: Random) -> None:
        self.fleet, self.chance, self.ledger = fleet, chance, Ledger()

    async def run(self, level: str, disturbance: str) -> str:
        """One round. Returns what it was and how it was answered."""
        began = elapsed()
        change = LEVELS[level](self.fleet, self.chance)
        going = asyncio.Event()
        asked = asyncio.create_task(self._ask(change, f"{level}, {disturbance}", going))
        try:
            await DISTURBANCES[disturbance](self.fleet, self.chance, change, going.set)
            window, answer = await asked
        finally:
            asked.cancel()
        await self._mended()
        self.ledger.count("level", level)
        self.ledger.count("disturbance", disturbance)
        self.ledger.count("answer", answer)
        if answer != "200":
            self.ledger.count("not 200 while", disturbance)
        if answer not in {"200", "202", "no answer"}:  # it was not carried out, and said so
            await self.fleet.done(change.off.method, change.off.path, change.off.body)
        await self._converge(change, "refused")
        await self._let_in_again(change, window)
        return f"{level}, {disturbance}: {answer} ({elapsed() - began:.1f} s)"

    async def _ask(self, change: Change, title: str, going: asyncio.Event) -> tuple[Window | None, str]:
        await going.wait()
        asked = elapsed()
        try:
            response = await self._send(change.off)
        except httpx2.TransportError:
            return None, "no answer"
        if response.status_code != 200:
            return None, str(response.status_code)
        window = Window(title, change, elapsed())
        self.ledger.windows.append(window)
        self.ledger.receipts.append(window.since - asked)
        return window, "200"

    async def _send(self, request: Request) -> httpx2.Response:
        return await self.fleet.admin(request.method, request.path, request.body)

    async def _mended(self) -> None:
        async with asyncio.timeout(60):
            for member in self.fleet.members.values():
                await member.process.until_ready()

    async def _let_in_again(self, change: Change, window: Window | None) -> None:
        if window and change.on:
            window.until = elapsed()
        if change.on:
            await self.fleet.done(change.on.method, change.on.path, change.on.body)
        if change.afterwards:
            await change.afterwards(self.fleet)
        await self._converge(change, "done")

    async def _converge(self, change: Change, outcome: Outcome) -> None:
        """Until each replica answers so to somebody whom it concerns."""
        await asyncio.gather(*(self._answers(change, outcome, url) for url in self.fleet.urls))

    async def _answers(self, change: Change, outcome: Outcome, url: str) -> None:
        last: Outcome = ""
        try:
            async with asyncio.timeout(CONVERGED_WITHIN):
                while last != outcome:
                    last = (await self.fleet.load.call(change.caller, url, change.slug, change.tool)).outcome
                    await asyncio.sleep(0.02 if last != outcome else 0)
        except TimeoutError:
            raise AssertionError(f"{url} still answers {last!r} where it should be {outcome!r}") from None

    def report(self) -> str:
        """All counts, for people."""
        lines = [f"{sum(self.ledger.counts['level'].values())} switches"]
        for what, counts in self.ledger.counts.items():
            lines.append(f"by {what}: " + ", ".join(f"{which} {n}" for which, n in counts.most_common()))
        load = self.fleet.load
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in load.outcomes.most_common())
        lines.append(f"{len(load.calls)} calls: {outcomes}")
        if receipts := sorted(self.ledger.receipts):
            middle = receipts[len(receipts) // 2]
            lines.append(f"receipts: median {middle * 1000:.0f} ms, longest {receipts[-1]:.2f} s")
        return "\n".join(lines)
