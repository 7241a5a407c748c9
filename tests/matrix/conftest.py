"""One Lockgate with every kind of upstream, for all cells of the matrix."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests import npm
from tests.e2e.conftest import Gate, started
from tests.matrix.upstreams import running
from tests.npm import packages

__all__ = ["packages"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(packages: npm.Packages, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    with running(packages) as upstreams:
        async with started(tmp_path_factory.mktemp("gate")) as gate:
            for upstream in upstreams:
                definition = {"name": upstream.slug, "auth": "none", "default_access": "allow"}
                path = f"/api/policy/servers/{upstream.slug}"
                await gate.admin.api("PUT", path, definition | upstream.definition)
            yield gate
