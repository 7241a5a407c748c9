"""People who call tools all the time, over all replicas, and the ledger of their calls."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import httpx2

from libs.common.clock import elapsed
from tests.faults.upstream import TOOLS

PAUSE = 0.03  # seconds between two calls of one person, on average
PATIENCE = 20.0  # seconds that a caller waits for an answer

# `refused`: by a decision; `unavailable`: 503, it cannot decide now; `failed`: no answer that counts.
Outcome = Literal["", "done", "refused", "unavailable", "failed"]


@dataclass
class Caller:
    user: str
    email: str
    password: str
    client: str
    group: str
    tokens: dict[str, str] = field(default_factory=dict)  # by server


@dataclass
class Call:
    """`started` is before its first byte is sent."""

    number: int
    caller: Caller
    slug: str
    tool: str
    token: str
    started: float
    outcome: Outcome = ""


@dataclass
class Load:
    callers: list[Caller] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # by number
    outcomes: Counter[str] = field(default_factory=Counter)
    _http: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def running(self, urls: list[str]) -> AsyncIterator[None]:
        """Everybody calls until the block ends."""
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(timeout=PATIENCE, limits=limits) as self._http:
            tasks = [asyncio.create_task(self._work(caller, urls)) for caller in self.callers for _ in urls]
            try:
                yield
                assert not any(task.done() for task in tasks), "everybody calls to the end"
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, caller: Caller, urls: list[str]) -> None:
        """Several of these for each person, so that one replica that hangs stops nobody."""
        chance = random.Random()
        for url in itertools.cycle(chance.sample(urls, len(urls))):
            await self.call(caller, url, chance.choice(list(caller.tokens)), chance.choice(TOOLS))
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE * len(urls)))

    async def call(self, caller: Caller, url: str, slug: str, tool: str) -> Call:
        """One call to the replica at `url`."""
        assert self._http
        call = Call(len(self.calls), caller, slug, tool, caller.tokens[slug], 0.0)
        self.calls.append(call)
        params = {"name": tool, "arguments": {"number": call.number}}
        body = {"jsonrpc": "2.0", "id": call.number, "method": "tools/call", "params": params}
        headers = {
            "authorization": f"Bearer {call.token}",
            "accept": "application/json, text/event-stream",
        }
        call.started = elapsed()
        try:
            answer = await self._http.post(f"{url}/mcp/{slug}", json=body, headers=headers)
            call.outcome = _outcome(answer)
        except httpx2.TransportError:
            call.outcome = "failed"
        self.outcomes[call.outcome] += 1
        return call


def _outcome(answer: httpx2.Response) -> Outcome:
    if answer.status_code == 503:
        return "unavailable"
    if answer.status_code in {401, 403, 404}:
        return "refused"
    if answer.status_code != 200:
        return "failed"
    return "done" if "result" in answer.json() else "refused"
