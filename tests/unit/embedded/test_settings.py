"""Settings of the five services from one place."""

import base64
import stat
import subprocess
from pathlib import Path

import pytest

from libs.common.settings import BadSettings
from services.embedded.catalog import NAMES
from services.embedded.settings import Place, derive, describe_gateway


def test_every_service_gets_the_same_place(place: Place) -> None:
    for settings in derive(place).values():
        assert settings.public_url == "http://127.0.0.1:8080"
        assert settings.data_dir == place.directory.path
        assert settings.nats_url == place.nats.url
        assert settings.nats_user == "lockgate"
        assert settings.nats_password is not None
        assert settings.nats_password.get_secret_value() == "secret"


def test_nothing_has_to_be_configured(place: Place) -> None:
    settings = derive(place)
    assert set(settings) == set(NAMES)
    assert settings["policy"].model_dump()["policy_demo_url"] == "http://127.0.0.1:9/mcp"
    assert settings["credentials"].model_dump()["credentials_create_master_key"] is True


def test_the_session_key_is_generated_once(place: Place) -> None:
    first = derive(place)["gateway"].model_dump()["gateway_session_key"].get_secret_value()
    again = derive(place)["gateway"].model_dump()["gateway_session_key"].get_secret_value()
    assert first == again
    assert len(base64.b64decode(first)) == 32


def test_the_environment_replaces_defaults(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKGATE_LOG_LEVEL", "debug")
    monkeypatch.setenv("LOCKGATE_LEASE", "9")
    monkeypatch.setenv("LOCKGATE_POLICY_DEMO_URL", "http://127.0.0.1:7/mcp")
    settings = derive(place)
    assert {s.log_level for s in settings.values()} == {"debug"}
    assert {s.lease for s in settings.values()} == {9.0}
    assert settings["policy"].model_dump()["policy_demo_url"] == "http://127.0.0.1:7/mcp"


def test_the_environment_does_not_replace_what_embedded_mode_is_about(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKGATE_NATS_URL", "nats://elsewhere:4222")
    monkeypatch.setenv("LOCKGATE_DATA_DIR", "/elsewhere")
    for settings in derive(place).values():
        assert settings.nats_url == place.nats.url
        assert settings.data_dir == place.directory.path


def test_wrong_settings_of_all_services_are_reported_at_once_and_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKGATE_LEASE", "soon")
    monkeypatch.setenv("LOCKGATE_GATEWAY_BODY_LIMIT", "-1")
    monkeypatch.setenv("LOCKGATE_POLICY_UPSTREAM_TIMEOUT", "long")
    with pytest.raises(BadSettings) as bad:
        derive(place)
    names = [line.partition(":")[0] for line in str(bad.value).splitlines()]
    assert sorted(names) == [
        "LOCKGATE_GATEWAY_BODY_LIMIT",
        "LOCKGATE_LEASE",
        "LOCKGATE_POLICY_UPSTREAM_TIMEOUT",
    ]


def test_a_shell_can_read_the_environment_of_a_further_gateway(place: Place) -> None:
    settings = derive(place)["gateway"]
    describe_gateway(place, settings)
    path: Path = place.directory.path / "gateway.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    script = f'set -a; . "{path}"; env'
    output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "LOCKGATE_NATS_URL=nats://127.0.0.1:1\n" in output
    assert "LOCKGATE_NATS_PASSWORD=secret\n" in output
    session_key = settings.model_dump()["gateway_session_key"].get_secret_value()
    assert f"LOCKGATE_GATEWAY_SESSION_KEY={session_key}\n" in output
