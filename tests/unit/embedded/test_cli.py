"""The `lockgate` command as a person meets it: exit codes, and errors that say what to do."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.embedded.datadir import DataDirectory

LOCKGATE = Path(sys.executable).with_name("lockgate")


def lockgate(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    return subprocess.run(
        [str(LOCKGATE), *map(str, arguments)],
        env=clean | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_version() -> None:
    ended = lockgate("version")
    assert (ended.returncode, ended.stdout) == (0, "lockgate 0.1.0\n")


def test_a_second_up_on_a_directory_names_the_first_and_leaves_it_alone(directory: DataDirectory) -> None:
    before = sorted(directory.path.iterdir())
    ended = lockgate("up", "--data", directory.path, "--port", 0)
    assert ended.returncode == 1
    assert f"in use by process {os.getpid()}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(directory.path.iterdir()) == before


def test_a_taken_port_is_known_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = lockgate("up", "--data", tmp_path / "data", "--port", port)
    assert ended.returncode == 1
    assert ended.stderr == f"lockgate: port {port} on 127.0.0.1 is taken. Choose another with --port.\n"
    assert not (tmp_path / "data" / "nats.json").exists()


def test_an_address_that_is_not_ours_is_refused_in_words(tmp_path: Path) -> None:
    ended = lockgate("up", "--data", tmp_path / "data", "--host", "192.0.2.1", "--port", 0)
    assert ended.returncode == 1
    assert ended.stderr.startswith("lockgate: cannot listen on 192.0.2.1 port 0: ")


def test_up_reports_every_bad_setting_at_once(tmp_path: Path) -> None:
    ended = lockgate(
        "up",
        *("--data", tmp_path / "data", "--port", 0, "--public-url", "not a url"),
        LOCKGATE_LEASE="soon",
        LOCKGATE_POLICY_UPSTREAM_TIMEOUT="long",
    )
    assert ended.returncode == 2
    for name in ("PUBLIC_URL", "LEASE", "POLICY_UPSTREAM_TIMEOUT"):
        assert ended.stderr.count(f"LOCKGATE_{name}: ") == 1
    assert "Traceback" not in ended.stderr


def test_up_reports_a_bad_master_key_before_anything_starts_and_does_not_show_it(tmp_path: Path) -> None:
    ended = lockgate(
        *("up", "--data", tmp_path / "data", "--port", 0),
        LOCKGATE_CREDENTIALS_MASTER_KEY="abc",
        LOCKGATE_LEASE="soon",
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "lockgate: these settings are wrong:",
        "LOCKGATE_LEASE: 'soon' - input should be a valid number",
        "LOCKGATE_CREDENTIALS_MASTER_KEY: must be Base64 (openssl rand -base64 32 makes a key)",
    ]


def test_bad_settings_that_only_the_service_can_know_are_shown_without_a_traceback(tmp_path: Path) -> None:
    ended = lockgate(
        *("up", "--data", tmp_path / "data", "--port", 0, "--no-demo"),
        LOCKGATE_CREDENTIALS_MASTER_KEY_FILE=str(tmp_path / "nowhere"),
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "lockgate: these settings are wrong:\nLOCKGATE_CREDENTIALS_MASTER_KEY_FILE: "
    )
    assert "Traceback" not in ended.stderr


def test_serve_reports_every_bad_setting_at_once(tmp_path: Path) -> None:
    ended = lockgate("serve", "gateway", LOCKGATE_DATA_DIR=str(tmp_path), LOCKGATE_LEASE="soon")
    assert ended.returncode == 2
    assert "LOCKGATE_GATEWAY_SESSION_KEY: " in ended.stderr
    assert "LOCKGATE_LEASE: " in ended.stderr


def test_serve_names_variables_that_nothing_reads(tmp_path: Path) -> None:
    ended = lockgate("serve", "gateway", LOCKGATE_DATA_DIR=str(tmp_path), LOCKGATE_GATWAY_BODY_LIMIT="1")
    assert "LOCKGATE_GATWAY_BODY_LIMIT is no setting and has no effect" in ended.stderr


def test_serve_without_a_bus_says_which_service_and_why(tmp_path: Path) -> None:
    ended = lockgate(
        *("serve", "policy", "--port", 0),
        LOCKGATE_DATA_DIR=str(tmp_path),
        LOCKGATE_NATS_URL="nats://127.0.0.1:1",
    )
    assert ended.returncode == 1
    assert "lockgate: policy could not start: NATS at nats://127.0.0.1:1 does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("serve", "nothing"), ("up", "--port", "70000"), ("upp",)])
def test_a_wrong_command_line_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert lockgate(*arguments).returncode == 2
