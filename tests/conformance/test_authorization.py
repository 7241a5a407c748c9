"""The official conformance suite's scenarios for authorization servers pass against a real Lockgate."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests import npm
from tests.conformance import suite
from tests.conftest import free_port
from tests.e2e.conftest import Gate

SCENARIOS = 2  # the metadata, and a code grant from consent to token
_AUTHORIZATION = re.compile(r"http://\S+/oauth/authorize\?\S+")


async def allow_what_it_asks(process: asyncio.subprocess.Process, gate: Gate) -> str:
    """Open the URL that the suite prints in the administrator's browser, and allow it. Returns its output."""
    assert process.stdout
    output = ""
    async for line in process.stdout:
        output += line.decode()
        if url := _AUTHORIZATION.search(line.decode()):
            location = await gate.admin.authorize(url[0])
            async with httpx2.AsyncClient() as http:
                await http.get(location)
    return output


@pytest.mark.timeout(npm.INSTALL_WITHIN + 120)
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_the_suite_passes(packages: npm.Packages, gate: Gate, revision: str, tmp_path: Path) -> None:
    port, results = free_port(), tmp_path / "results"
    http = await gate.http()
    callback = f"http://127.0.0.1:{port}/callback"
    client = {"client_name": "Conformance", "redirect_uris": [callback]}
    registered = (await http.post(f"{gate.url}/oauth/register", json=client)).json()
    options = {
        "--url": gate.url,
        "--client-id": registered["client_id"],
        "--resource": gate.server("demo"),
        "--port": str(port),
        "--spec-version": revision,
        "--output-dir": str(results),
    }
    command = packages.command(
        "conformance", "authorization", *(word for pair in options.items() for word in pair)
    )
    process = await asyncio.create_subprocess_exec(
        *command, env=packages.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(90):
            print(output := await allow_what_it_asks(process, gate))
    finally:
        if process.returncode is None:
            process.kill()
    checks = [json.loads(file.read_text()) for file in results.glob("*/checks.json")]
    assert len(checks) == SCENARIOS, output
    assert [suite.outcome(found) for found in checks] == ["passed"] * SCENARIOS
