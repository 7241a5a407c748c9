"""Master keys: one suite for every place where one may live, and what is special to each."""

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from libs.common.settings import BadSettings, load
from services.credentials.app import create_app
from services.credentials.masterkey.load import load as load_keys
from services.credentials.masterkey.load import reference
from services.credentials.masterkey.local import LocalKey
from services.credentials.masterkey.port import MasterKey, MasterKeyUnavailable, NotWrappedHere
from services.credentials.settings import CredentialsSettings
from tests.unit.credentials.conftest import master_key
from tests.unit.credentials.kms import Aws, Kms, Transit

DATA_KEY = secrets.token_bytes(32)


def _settings(**more: object) -> CredentialsSettings:
    return CredentialsSettings(**more)  # type: ignore[arg-type]


@pytest.fixture
def transit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transit]:
    with Transit("lockgate", "other").serving() as kms:
        monkeypatch.setenv("VAULT_ADDR", kms.url)
        monkeypatch.setenv("VAULT_TOKEN", Transit.token)
        yield cast(Transit, kms)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws("lockgate", "other").serving() as kms:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.url)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield cast(Aws, kms)


REFERENCES = {
    "local": (master_key(), master_key()),
    "transit": ("vault:transit/lockgate", "vault:transit/other"),
    "aws": ("aws:alias/lockgate", "aws:alias/other"),
}


@pytest.fixture(params=REFERENCES)
def keys(request: pytest.FixtureRequest) -> list[MasterKey]:
    """Two master keys of one kind."""
    if request.param != "local":
        request.getfixturevalue(request.param)
    return [reference(text, "KEY", _settings()) for text in REFERENCES[request.param]]


def test_what_was_wrapped_unwraps(keys: list[MasterKey]) -> None:
    wrapped = keys[0].wrap(DATA_KEY, b"account/1")
    assert DATA_KEY not in wrapped
    assert keys[0].unwrap(wrapped, b"account/1") == DATA_KEY


def test_it_unwraps_for_its_own_record_only(keys: list[MasterKey]) -> None:
    wrapped = keys[0].wrap(DATA_KEY, b"account/1")
    with pytest.raises(NotWrappedHere):
        keys[0].unwrap(wrapped, b"account/2")


def test_another_key_does_not_unwrap_it(keys: list[MasterKey]) -> None:
    wrapped = keys[0].wrap(DATA_KEY, b"account/1")
    with pytest.raises(NotWrappedHere):
        keys[1].unwrap(wrapped, b"account/1")


@pytest.mark.parametrize("damage", [lambda w: w[:-5], lambda w: w[:20] + b"!!!!" + w[24:], lambda _: b"\xff"])
def test_what_was_damaged_does_not_unwrap(keys: list[MasterKey], damage: object) -> None:
    wrapped = keys[0].wrap(DATA_KEY, b"account/1")
    with pytest.raises(NotWrappedHere):
        keys[0].unwrap(damage(wrapped), b"account/1")  # type: ignore[operator]


def test_each_key_has_an_id_that_tells_nothing(keys: list[MasterKey]) -> None:
    assert keys[0].id != keys[1].id
    if isinstance(keys[0], LocalKey):
        assert keys[0].raw.hex()[:8] not in keys[0].id
        assert LocalKey(keys[0].raw).id == keys[0].id


# -- a KMS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transit", "aws"])
def test_a_kms_that_is_down_says_so_and_serves_again(kind: str, request: pytest.FixtureRequest) -> None:
    kms: Kms = request.getfixturevalue(kind)
    key = reference(REFERENCES[kind][0], "KEY", _settings())
    wrapped = key.wrap(DATA_KEY, b"account/1")
    kms.down = True
    with pytest.raises(MasterKeyUnavailable, match=key.id):
        key.wrap(DATA_KEY, b"account/1")
    with pytest.raises(MasterKeyUnavailable, match=key.id):
        key.unwrap(wrapped, b"account/1")
    kms.down = False
    assert key.unwrap(wrapped, b"account/1") == DATA_KEY


@pytest.mark.parametrize("kind", ["transit", "aws"])
def test_a_key_that_the_kms_does_not_have_refuses_to_start_and_is_named(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(kind)
    name = {"transit": "vault:transit/nothing", "aws": "aws:alias/nothing"}[kind]
    with pytest.raises(BadSettings, match=f"LOCKGATE_CREDENTIALS_MASTER_KEY.*{name}"):
        create_app(_settings(data_dir=tmp_path, credentials_master_key=name))


@pytest.mark.parametrize("kind", ["transit", "aws"])
def test_a_key_made_anew_under_the_same_name_refuses_to_start(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kms: Kms = request.getfixturevalue(kind)
    settings = _settings(data_dir=tmp_path, credentials_master_key=REFERENCES[kind][0])
    create_app(settings)
    create_app(settings)
    kms.keys = type(kms)("lockgate").keys
    with pytest.raises(BadSettings, match="made anew under the same name"):
        create_app(settings)


def test_a_new_token_of_vaults_agent_is_read_when_the_old_one_ends(transit: Transit, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s.first\n")
    settings = _settings(credentials_vault_token_file=file)
    key = reference("vault:transit/lockgate", "KEY", settings)
    wrapped = key.wrap(DATA_KEY, b"account/1")
    transit.token = "s.second"
    with pytest.raises(MasterKeyUnavailable):
        key.unwrap(wrapped, b"account/1")
    file.write_text("s.second\n")
    assert key.unwrap(wrapped, b"account/1") == DATA_KEY


def test_aws_needs_a_region_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BadSettings, match=r"LOCKGATE_CREDENTIALS_MASTER_KEY.*region"):
        create_app(_settings(data_dir=tmp_path, credentials_master_key="aws:alias/lockgate"))


# -- several ----------------------------------------------------------------------------------------


def test_further_keys_come_directly_and_from_files_and_the_first_is_the_main_one(tmp_path: Path) -> None:
    main, one, two, three = (master_key() for _ in range(4))
    file = tmp_path / "keys"
    file.write_text(f"{two}\n{three}\n")
    settings = _settings(credentials_master_key=main, credentials_more_keys=f" {one}, file:{file},")
    found = load_keys(settings, vault_exists=False)
    assert [key.id for key in found] == [
        LocalKey(base64.b64decode(text)).id for text in (main, one, two, three)
    ]


@pytest.mark.parametrize("more", ["nonsense", "vault:", "vault:transit", "aws:", "file:/nowhere/key"])
def test_a_further_key_that_is_none_is_named_and_not_shown(more: str, tmp_path: Path) -> None:
    settings = load(
        CredentialsSettings,
        data_dir=tmp_path,
        credentials_master_key=master_key(),
        credentials_more_keys=more,
    )
    with pytest.raises(BadSettings, match="LOCKGATE_CREDENTIALS_MORE_KEYS") as bad:
        create_app(settings)
    assert "nonsense" not in str(bad.value)
