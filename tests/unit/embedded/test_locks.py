"""The lock files are in step with pyproject.toml, and name no package index."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements(*lines: str) -> Iterator[Requirement]:
    """The requirements in `lines`, the project's own extras followed."""
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            yield from requirements(*(line for extra in requirement.extras for line in EXTRAS[extra]))
        else:
            yield requirement


def pinned(lock: str) -> dict[str, list[str]]:
    """Versions by distribution; several where they depend on the platform."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements" / lock).read_text(), re.M
    ):
        versions.setdefault(canonicalize_name(name), []).append(version)
    return versions


@pytest.mark.parametrize(("lock", "extra"), [("run.lock", "embedded"), ("dev.lock", "dev")])
def test_the_lock_has_what_pyproject_asks_for(lock: str, extra: str) -> None:
    versions = pinned(lock)
    wanted = requirements(*PROJECT["dependencies"], *EXTRAS[extra])
    missing = [
        str(requirement)
        for requirement in wanted
        if not any(map(requirement.specifier.contains, versions.get(canonicalize_name(requirement.name), [])))
    ]
    assert missing == [], "run `make lock`"


def test_both_locks_pin_the_same_versions() -> None:
    run, dev = pinned("run.lock"), pinned("dev.lock")
    assert {name: dev.get(name) for name in run} == run


@pytest.mark.parametrize("lock", ["run.lock", "dev.lock"])
def test_every_pin_has_hashes_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    pins = re.findall(r"^[\w.-]+==.*?(?=^\S|\Z)", text, re.M | re.S)
    assert len(pins) > 50
    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []
    assert "://" not in text
    assert "index-url" not in text.replace("--no-emit-index-url", "")
