"""Fixtures of the embedded mode's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded.datadir import DataDirectory
from services.embedded.nats import Connection
from services.embedded.settings import Place


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    """A locked data directory."""
    with DataDirectory(tmp_path / "data") as directory:
        yield directory


@pytest.fixture
def place(directory: DataDirectory) -> Place:
    """An instance whose bus does not run: enough to derive settings and to build apps."""
    bus = Connection("nats://127.0.0.1:1", "lockgate", "secret", "lockgate-test")
    return Place(directory, "http://127.0.0.1:8080", bus, "http://127.0.0.1:9/mcp")
