"""The npm packages that tests run, as tests/node/package-lock.json pins them, and a Node to run them."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parent / "node"
INSTALL_WITHIN = 300.0  # seconds
NODE_AT_LEAST = 22

# What npm says when it cannot get through to the registry.
_UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONN\w+|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b")


class Unavailable(Exception):
    """npm is missing, or the registry cannot be reached."""


@dataclass(frozen=True, slots=True)
class Packages:
    """The installed packages."""

    node: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        """Run a package's program, by the packages' own Node: many machines have an older one."""
        return [str(self.node), str(DIRECTORY / "node_modules" / ".bin" / program), *arguments]

    def script(self, name: str, *arguments: str) -> list[str]:
        """Run one of the scripts in tests/node."""
        return [str(self.node), str(DIRECTORY / name), *arguments]

    def environment(self, **values: str) -> dict[str, str]:
        """The environment for them, in which their programs, `node` among them, are found first."""
        programs = [self.node.parent, DIRECTORY / "node_modules" / ".bin"]
        path = os.pathsep.join([*map(str, programs), os.environ.get("PATH", "")])
        kept = {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
        return kept | {"PATH": path} | values


def installed() -> Packages:
    """Installs them unless they are there. Raises `Unavailable`."""
    with (DIRECTORY / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else's tests may be installing
        wanted = hashlib.sha256(lock.read()).hexdigest()
        stamp = DIRECTORY / "node_modules" / "installed.sha256"
        if not stamp.exists() or stamp.read_text() != wanted:
            _install()
            stamp.write_text(wanted)
    return Packages(_node())


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    command = [npm, "ci", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=DIRECTORY, capture_output=True, text=True, check=False, timeout=INSTALL_WITHIN
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm ci has not finished within {INSTALL_WITHIN:.0f} seconds") from error
    if done.returncode and _UNREACHABLE.search(done.stderr):
        raise Unavailable(f"npm cannot reach the registry:\n{done.stderr}")
    assert done.returncode == 0, f"npm ci failed:\n{done.stdout}{done.stderr}"


def _node() -> Path:
    """The Node among the packages; where there is none for this platform, the machine's."""
    # Not by its link among the programs: npm 9 makes none where several packages have one of that name.
    pinned = next((DIRECTORY / "node_modules").glob("node-*/bin/node"), None)
    node = pinned or Path(shutil.which("node") or "node")
    try:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise Unavailable("Node is not installed, and no package brings one for this platform") from error
    if int(version.lstrip("v").partition(".")[0]) < NODE_AT_LEAST:
        raise Unavailable(f"Node {NODE_AT_LEAST} or newer is needed; this is {version.strip()}")
    return node


@pytest.fixture(scope="session")
def packages() -> Packages:
    """Without npm the tests that need it are skipped; but not in CI, where nobody reads of skipped tests."""
    try:
        return installed()
    except Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
