"""Access as code by the command: every line of docs/access-as-code.md, and its document."""

import asyncio
import re
import subprocess
from pathlib import Path

import httpx2
import pytest

from services.device_login import login_to_api
from tests.e2e.conftest import Gate
from tests.e2e.people import Browser
from tests.e2e.processes import LOCKGATE, environment

PAGE = Path(__file__).parents[2] / "docs" / "access-as-code.md"
COMMANDS = re.findall(r"^lockgate (.+)$", PAGE.read_text(), re.MULTILINE)
(DOCUMENT,) = re.findall(r"```yaml\n(.+?)```", PAGE.read_text(), re.DOTALL)


class Command:
    """Runs `lockgate` in a directory, as an administrator's pipeline."""

    def __init__(self, gate: Gate, token: str, directory: Path) -> None:
        self._env = environment(url=gate.url, token=token)
        self._directory = directory

    async def __call__(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(
            subprocess.run,
            [str(LOCKGATE), *arguments],
            cwd=self._directory,
            env=self._env | more,
            capture_output=True,
            text=True,
            check=False,
        )


async def api_token(gate: Gate, browser: Browser) -> str:
    """An access token for the HTTP APIs, as the command gets one: by code, allowed in the browser."""
    loop, shown = asyncio.get_running_loop(), asyncio.Queue[str]()

    def show(_: str, code: str) -> None:
        loop.call_soon_threadsafe(shown.put_nowait, code)

    with httpx2.Client(timeout=30) as http:
        token = asyncio.create_task(asyncio.to_thread(login_to_api, gate.url, show, http))
        async with asyncio.timeout(30):
            await browser.submit("/oauth/device", {"user_code": await shown.get(), "decision": "allow"})
            return str((await token)["access_token"])


@pytest.fixture
async def command(gate: Gate, tmp_path: Path) -> Command:
    await gate.member()
    return Command(gate, await api_token(gate, gate.admin), tmp_path)


async def test_the_documented_commands_run_and_hold_the_documented_state(
    gate: Gate, command: Command, tmp_path: Path
) -> None:
    export, plan, apply = (line.split() for line in COMMANDS)
    assert (await command(*export)).returncode == 0
    untouched = await command(*plan, "--exit-code")
    assert (untouched.returncode, untouched.stdout.strip()) == (
        0,
        "Nothing differs: all is as the document says.",
    )
    (tmp_path / "access.yaml").write_text(DOCUMENT)
    planned = await command(*plan, "--exit-code")
    assert planned.returncode == 2
    assert "+ group support" in planned.stdout
    assert "demo: mia@example.com (default -> support)" in planned.stdout
    applied = await command(*apply, "--yes")
    assert applied.returncode == 0
    assert "it holds on every replica" in applied.stdout
    member = await gate.admin.api("GET", "/api/policy/groups/support/members")
    assert [each["email"] for each in member["items"]] == ["mia@example.com"]
    assert (await command(*plan, "--exit-code")).returncode == 0


async def test_a_mistake_is_told_with_its_place_and_nothing_is_changed(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "access.yaml"
    told = {
        "version: 1\nrules: {}\nrules: {}\n": "line 3",
        "version: 1\nrules: &a {}\nquotas: *a\n": "aliases",
        "- 1\n": "version: 1",
        "version: 1\nrules: [\n": "line",
        DOCUMENT.replace("mia@", "nobody@"): "groups.support.members[0]: nobody has the e-mail address",
    }
    for text, said in told.items():
        file.write_text(text)
        done = await command("apply", "-f", "access.yaml", "--yes")
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert "No such file" in (await command("plan", "-f", "missing.yaml")).stderr


async def test_only_administrators_may(gate: Gate, command: Command) -> None:
    token = await api_token(gate, (await gate.member("max")).browser)
    refused = await command("export", LOCKGATE_TOKEN=token)
    assert (refused.returncode, "administrator" in refused.stderr) == (1, True)
