"""Starting: the master key is there and the right one, or the service says what is wrong."""

import base64
import stat
from pathlib import Path

import pytest

from libs.common.control.entries import ORGANIZATION, CredentialVersion
from libs.common.settings import BadSettings, load
from services.credentials.app import create_app
from services.credentials.settings import CredentialsSettings
from tests.unit.conftest import ControlLog, Serve
from tests.unit.credentials.conftest import master_key


def _settings(tmp_path: Path, **more: object) -> CredentialsSettings:
    return CredentialsSettings(data_dir=tmp_path / "data", **more)  # type: ignore[arg-type]


def test_without_a_master_key_it_refuses_to_start_and_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"(?s)LOCKGATE_CREDENTIALS_MASTER_KEY.*openssl rand"):
        create_app(_settings(tmp_path))


@pytest.mark.parametrize("value", ["", "not base64!", base64.b64encode(b"short").decode(), "ä"])
def test_a_malformed_master_key_is_named_and_not_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(BadSettings, match="LOCKGATE_CREDENTIALS_MASTER_KEY") as bad:
        create_app(load(CredentialsSettings, data_dir=tmp_path / "data", credentials_master_key=value))
    assert not value or value not in str(bad.value)


def test_a_wrong_master_key_refuses_to_start_and_says_so(tmp_path: Path) -> None:
    right, wrong = master_key(), master_key()
    create_app(_settings(tmp_path, credentials_master_key=right))
    with pytest.raises(BadSettings, match="not the master key") as bad:
        create_app(_settings(tmp_path, credentials_master_key=wrong))
    assert wrong not in str(bad.value)
    create_app(_settings(tmp_path, credentials_master_key=right))


def test_the_master_key_can_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = master_key()
    file.write_text(key + "\n")
    create_app(_settings(tmp_path, credentials_master_key_file=file))
    create_app(_settings(tmp_path, credentials_master_key=key))


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"LOCKGATE_CREDENTIALS_MASTER_KEY_FILE.*nowhere"):
        create_app(_settings(tmp_path, credentials_master_key_file=tmp_path / "nowhere"))


def test_two_sources_of_the_master_key_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(master_key())
    with pytest.raises(BadSettings, match="not both"):
        create_app(_settings(tmp_path, credentials_master_key=master_key(), credentials_master_key_file=file))


def test_where_it_may_it_makes_a_key_that_only_its_user_can_read(tmp_path: Path) -> None:
    settings = _settings(tmp_path, credentials_create_master_key=True)
    create_app(settings)
    file = settings.data_dir / "master.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(base64.b64decode(file.read_text(), validate=False)) == 32
    made = file.read_bytes()
    create_app(settings)
    assert file.read_bytes() == made


def test_a_lost_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    settings = _settings(tmp_path, credentials_create_master_key=True)
    create_app(settings)
    (settings.data_dir / "master.key").unlink()
    with pytest.raises(BadSettings, match="missing"):
        create_app(settings)
    assert not (settings.data_dir / "master.key").exists()


def test_the_master_key_is_not_in_the_representation_of_the_settings(tmp_path: Path) -> None:
    key = master_key()
    assert key not in repr(_settings(tmp_path, credentials_master_key=key))


async def test_the_log_says_after_a_start_what_the_vault_holds(
    settings: CredentialsSettings, control: ControlLog, serve: Serve
) -> None:
    await control.put(CredentialVersion(version=9, slug="gone", user=ORGANIZATION))
    await serve(create_app(settings))
    assert await control.get(f"credential.gone.{ORGANIZATION}") is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_it_says_that_it_is_well(
    settings: CredentialsSettings, control: ControlLog, serve: Serve, path: str
) -> None:
    client = await serve(create_app(settings))
    assert (await client.get(path)).status_code == 200
