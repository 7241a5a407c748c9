"""Nothing that fits, or does not fit, a service's OpenAPI document makes the service fail (no 5xx)."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Gate, started
from tests.unit.conftest import new_database, postgres

__all__ = ["postgres"]

SERVICES = ("activity", "credentials", "policy", "auth")
STORED_IN_SQL = ("AUTH", "POLICY", "CREDENTIALS")
EXAMPLES = 25  # at most, of an operation, beside those that cover each constraint
RUN_WITHIN = 90.0  # seconds, for one service
EMAIL, PASSWORD = "fuzz@example.com", "a password for a robot"
ROOT = Path(__file__).parents[2]  # of the repository
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


async def make_objects(gate: Gate) -> dict[str, list[str]]:
    """Something to act on, by the parameters that name it."""
    people = []
    for number in range(4):
        user = {"email": f"person-{number}@example.com", "name": "Somebody"}
        people.append((await gate.admin.api("POST", "/api/auth/users", user))["id"])
    for slug in ("first", "second"):
        server = {"name": slug, "url": "http://127.0.0.1:9/mcp", "auth": "api_key", "default_access": "allow"}
        await gate.admin.api("PUT", f"/api/policy/servers/{slug}", server)
    groups = [group["id"] for group in (await gate.admin.api("GET", "/api/policy/groups"))["items"]]
    return {
        "path.user_id": people,
        "query.user": people,
        "path.slug": ["first", "second"],
        "query.server": ["first", "second"],
        "path.group": groups,
    }


def configuration(objects: dict[str, list[str]]) -> str:
    """For schemathesis: that it uses the objects, most of the time."""
    lines = ["[dictionaries]"]
    lines += [f'"{name}".values = {json.dumps(values)}' for name, values in objects.items()]
    lines += ["[parameters]"]
    lines += [f'"{name}" = {{ dictionary = "{name}", probability = 0.8 }}' for name in objects]
    lines += ["[[operations]]", 'include-path-regex = "/refresh$"']  # 502: the server that is asked is away
    lines += ['checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502"]']
    return "\n".join(lines)


async def fuzz(gate: Gate, service: str, directory: Path, environment: dict[str, str]) -> str:
    """Run schemathesis. Returns its report; fails with its output."""
    report = directory / f"{service}.ndjson"
    command = [str(SCHEMATHESIS), f"--config-file={directory}/schemathesis.toml", "run"]
    command += [f"{gate.url}/api/{service}/openapi.json", "--checks=not_a_server_error"]
    command += [
        "--phases=examples,coverage,fuzzing",
        "--generation-deterministic",
        f"--max-examples={EXAMPLES}",
    ]
    command += ["--suppress-health-check=all", "--warnings=off", "--no-color", "--request-timeout=30"]
    command += ["--report=ndjson", f"--report-ndjson-path={report}"]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(RUN_WITHIN):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    return report.read_text()


def statuses(report: str) -> Counter[int]:
    """How often each status came."""
    found: Counter[int] = Counter()

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(status := value.get("status_code"), int):
                found[status] += 1
            value = list(value.values())
        if isinstance(value, list):
            for inner in value:
                visit(inner)

    for line in report.splitlines():
        visit(json.loads(line))
    return found


@pytest.mark.timeout(len(SERVICES) * RUN_WITHIN)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_no_request_makes_a_service_fail(
    request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> None:
    variables = {}
    if database == "postgresql":
        server: str = request.getfixturevalue("postgres")
        variables = {f"LOCKGATE_{name}_DATABASE_URL": new_database(server) for name in STORED_IN_SQL}
    async with started(tmp_path, variables=variables) as gate:
        robot = {"email": EMAIL, "password": PASSWORD, "role": "admin"}
        own_id = (await gate.admin.api("POST", "/api/auth/users", robot))["id"]
        (tmp_path / "schemathesis.toml").write_text(configuration(await make_objects(gate)))
        known = {"URL": gate.url, "EMAIL": EMAIL, "PASSWORD": PASSWORD, "ID": own_id}
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.openapi_hooks", "PYTHONPATH": str(ROOT)}
        environment |= {f"FUZZ_{name}": value for name, value in known.items()}
        for service in SERVICES:
            found = statuses(await fuzz(gate, service, tmp_path, environment))
            answered = sum(count for status, count in found.items() if status < 300)
            assert answered > 20, f"{service} did something: {found}"
            assert found[401] < answered, f"{service} knew who asked: {found}"
        assert gate.process
        assert "unexpected_error" not in gate.process.output
