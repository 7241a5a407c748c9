"""Where a credential may be sent: the origin of a URL, in one form."""

import pytest

from libs.common.control.entries import CredentialVersion, Server, origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://crm.example.com", "https://crm.example.com:443"),
        ("https://crm.example.com:443/mcp?a=b", "https://crm.example.com:443"),
        ("HTTPS://CRM.Example.COM/mcp", "https://crm.example.com:443"),
        ("http://crm.example.com/", "http://crm.example.com:80"),
        ("http://127.0.0.1:9001/mcp", "http://127.0.0.1:9001"),
        ("http://[::1]:9001/mcp", "http://[::1]:9001"),
        ("https://[2001:DB8::1]/mcp", "https://[2001:db8::1]:443"),
    ],
)
def test_the_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "crm.example.com", "/mcp", "ftp://crm.example.com", "https://", "http://a:b/", "http://[::1"]
)
def test_what_is_no_url_of_an_upstream_has_no_origin(url: str) -> None:
    assert origin_of(url) == ""


def _is_for(origin: str, url: str) -> bool:
    entry = CredentialVersion(version=1, slug="crm", user="organization", origin=origin)
    return entry.is_for(Server(version=1, slug="crm", name="CRM", url=url))


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://crm.example.com/mcp", True),
        ("https://crm.example.com:443/other", True),
        ("http://crm.example.com/mcp", False),
        ("https://crm.example.com:8443/mcp", False),
        ("https://crm.example.com.evil.example/mcp", False),
        ("https://user@evil.example/https://crm.example.com", False),
    ],
)
def test_a_credential_is_for_one_origin(url: str, may: bool) -> None:
    assert _is_for("https://crm.example.com:443", url) is may


@pytest.mark.parametrize("url", ["https://crm.example.com", "", "stdio:thing"])
def test_a_credential_without_an_origin_is_for_no_server(url: str) -> None:
    assert not _is_for("", url)
