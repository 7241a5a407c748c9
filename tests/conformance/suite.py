"""Runs the official conformance suite, and reads what it found scenario by scenario."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

from tests import npm

RUN_WITHIN = 300.0  # seconds
_RESULT = re.compile(r"server-(?P<scenario>.+?)-\d{4}-\d\d-\d\dT[\d-]+Z")


def scored(packages: npm.Packages, revision: str) -> set[str]:
    """The server scenarios that the suite counts for a revision of the protocol."""
    command = packages.command("conformance", "list", "--requirements", revision)
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    servers = re.search(r"^Server scenarios.*?:\n((?:  - \S+\n)+)", output, re.MULTILINE)
    assert servers, output
    return set(re.findall(r"- (\S+)", servers[1]))


async def run(packages: npm.Packages, url: str, revision: str, results: Path, token: str = "") -> str:
    """Run every server scenario of `revision` against `url`. Returns what the suite prints."""
    preload = ["--import", (npm.DIRECTORY / "bearer.mjs").as_uri()] if token else []
    node, *program = packages.command("conformance", "server", "--url", url, "--requirements", revision)
    process = await asyncio.create_subprocess_exec(
        *[node, *preload, *program, "--output-dir", str(results)],
        env=packages.environment(BEARER=token),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_WITHIN):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode()


def outcomes(results: Path) -> dict[str, str]:
    """What became of each scenario that was run: `passed`, or the checks that did not succeed."""
    found = {}
    for file in results.glob("*/checks.json"):
        name = _RESULT.fullmatch(file.parent.name)
        assert name, file
        found[name["scenario"]] = outcome(json.loads(file.read_text()))
    return found


def outcome(checks: list[dict[str, str]]) -> str:
    """A scenario passes by checks that succeeded, not by the absence of others."""
    bad = [check for check in checks if check["status"] not in {"SUCCESS", "INFO"}]
    if bad:
        return "; ".join(f"{check['id']} {check['status']}: {check.get('errorMessage')}" for check in bad)
    return "passed" if any(check["status"] == "SUCCESS" for check in checks) else "checked nothing"
