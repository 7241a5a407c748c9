"""How wrong settings are reported: every one, in words, with the wrong value unless it may be a secret."""

import pytest
from pydantic import Field, SecretStr

from libs.common.settings import BadSettings, Settings, load


class Example(Settings):
    """Settings with something to keep and something to show."""

    example_needed: str
    example_pin: SecretStr | None = Field(None, min_length=4)
    example_api_key: int = 0
    example_bus_url: str = Field("nats://bus", max_length=20)


def lines(**settings: object) -> list[str]:
    with pytest.raises(BadSettings) as bad:
        load(Example, **settings)
    return str(bad.value).splitlines()


def test_every_wrong_setting_is_named_with_its_value_and_what_is_wrong() -> None:
    assert lines(
        lease="abc", nats_replicas="9", log_level="loud", public_url="here", trusted_proxies="x"
    ) == [
        "LOCKGATE_PUBLIC_URL: 'here' - must be an origin such as https://mcp.example.com",
        "LOCKGATE_TRUSTED_PROXIES: 'x' - must be addresses or networks such as 10.0.0.0/8; "
        "'x' does not appear to be an IPv4 or IPv6 network",
        "LOCKGATE_NATS_REPLICAS: '9' - input should be less than or equal to 5",
        "LOCKGATE_LEASE: 'abc' - input should be a valid number",
        "LOCKGATE_LOG_LEVEL: 'loud' - input should be 'debug', 'info', 'warning' or 'error'",
        "LOCKGATE_EXAMPLE_NEEDED: field required",
    ]


def test_a_value_stays_on_its_line() -> None:
    assert lines(lease="1\n2", example_needed="x") == [
        "LOCKGATE_LEASE: '1\\n2' - input should be a valid number",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("example_pin", "123"),
        ("example_api_key", "swordfish"),
        ("example_bus_url", "nats://user:swordfish@bus"),
        ("public_url", "https://example.com/?token=swordfish"),
        ("nats_url", "nats://lockgate:swordfish@nats:4222"),
    ],
)
def test_a_value_that_may_be_a_secret_is_not_shown(name: str, value: str) -> None:
    [line] = lines(example_needed="x", **{name: value})
    assert line.startswith(f"LOCKGATE_{name.upper()}: ")
    assert value not in line
    assert "swordfish" not in line


def test_a_wrong_value_from_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKGATE_LEASE", "soon")
    assert lines(example_needed="x") == ["LOCKGATE_LEASE: 'soon' - input should be a valid number"]
