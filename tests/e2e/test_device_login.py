"""`lockgate login URL`: a token for a client that wants one pasted."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.conftest import LOCKGATE, Gate, environment, started
from tests.e2e.test_cutting_off import call, payload

PAGE = re.compile(r"/oauth/device\?user_code=(\S+)")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """One for both tests."""
    async with started(tmp_path_factory.mktemp("gate")) as gate:
        yield gate


async def test_a_person_types_the_code_and_gets_a_token_that_calls(gate: Gate) -> None:
    mia, http = await gate.member(), await gate.http()
    process = await asyncio.create_subprocess_exec(
        *[str(LOCKGATE), "login", gate.server("demo")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    async with asyncio.timeout(30):
        found = PAGE.search((await process.stderr.readline()).decode())
        assert found
        form = {"user_code": found[1], "decision": "allow"}
        assert "is connected" in (await mia.browser.submit("/oauth/device", form)).text
        token = (await process.stdout.read()).decode().strip()
        assert await process.wait() == 0
    assert "result" in payload(await call(http, gate.server("demo"), token))


async def test_a_url_that_is_none_of_lockgates_is_named(gate: Gate) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [str(LOCKGATE), "login", f"{gate.url}/healthz"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "does not ask for a login" in done.stderr
