"""The official conformance suite passes, with nothing excepted: every scored scenario of both eras."""

from pathlib import Path

import pytest

from tests import npm
from tests.conformance import suite
from tests.e2e.conftest import Gate
from tests.front import Front

SCORED = {"2025-11-25": 30, "2026-07-28": 37}  # how many scenarios the suite counts for a revision

pytestmark = [
    pytest.mark.timeout(npm.INSTALL_WITHIN + suite.RUN_WITHIN + 120),
    pytest.mark.parametrize("revision", SCORED),
]


async def assert_passes(
    packages: npm.Packages, url: str, revision: str, results: Path, token: str = ""
) -> None:
    scored = suite.scored(packages, revision)
    assert len(scored) == SCORED[revision]
    print(await suite.run(packages, url, revision, results, token))
    found = suite.outcomes(results)
    assert found.keys() >= scored
    # What the suite runs beyond the scored ones passes too, save for an extension that the upstream lacks.
    expected = {name for name in found if name in scored or not name.startswith("tasks-")}
    assert {name: found[name] for name in expected} == dict.fromkeys(expected, "passed")


async def test_the_upstream_itself_passes(
    packages: npm.Packages, everything: str, revision: str, tmp_path: Path
) -> None:
    await assert_passes(packages, everything, revision, tmp_path)


async def test_the_suite_passes_through_two_replicas_that_take_turns(
    packages: npm.Packages, balanced: Gate, front: Front, everything: str, revision: str, tmp_path: Path
) -> None:
    server = {"name": "Everything", "url": everything, "auth": "none", "default_access": "allow"}
    await balanced.admin.api("PUT", "/api/policy/servers/everything", server)
    url, mia = balanced.server("everything"), await balanced.member()
    token = await mia.bearer(url)
    front.requests.clear()

    await assert_passes(packages, url, revision, tmp_path / "results", token)

    served = [replica for replica, _ in front.requests]
    for replica in front.replicas:
        assert served.count(replica) > SCORED[revision], "each has had a part in most scenarios"
    assert await balanced.recorded(2 * SCORED[revision], server="everything", methods="all")
