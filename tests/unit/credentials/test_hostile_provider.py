"""What a provider may answer to harm somebody: it is believed only as far as it has to be."""

import base64
import json
from typing import Any

import pytest

from libs.common.fetching import Fetched, is_public
from libs.common.requests import Injection
from services.credentials.domain import Account, Owner
from services.credentials.oauth import endpoints
from services.credentials.oauth.domain import Client, Connection, ProviderRefused, token_answer
from services.credentials.oauth.web import Web, json_object
from services.credentials.views import AccountView
from services.credentials.words import expires

TOKEN_URL = "https://auth.example.com/token"
DEEP = b"[" * 200_000


def answering(document: dict[str, Any], status: int = 200) -> Web:
    async def ask(*_: object, **__: object) -> Fetched:
        return Fetched(json.dumps(document).encode(), {}, status)

    return Web(ask=ask)


def connection(refresh_token: str, secret: str = "", method: Any = "none") -> Connection:
    client = Client(client_id="c", client_secret=secret, auth_method=method)
    return Connection(
        token_endpoint=TOKEN_URL,
        client=client,
        access_token="a",
        refresh_token=refresh_token,
        obtained_at=0.0,
    )


@pytest.mark.parametrize(
    "address",
    [
        "fec0::1",  # site-local (RFC 3879)
        "4000::1",
        "3fff::1",
        "192.0.0.192",  # the metadata of a cloud
        "192.88.99.1",
        "168.63.129.16",  # the host, in another
        "100.100.100.200",
        "169.254.169.254",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_no_way_of_writing_an_address_of_ours_makes_it_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("seconds", [1e300, "1e300", 2**63 - 1, 10**12, "99999999999999999999"])
async def test_a_lifetime_beyond_all_calendars_breaks_no_list_of_accounts(seconds: Any) -> None:
    answer = token_answer({"access_token": "t", "expires_in": seconds}, 1e9)
    account = Account(
        id="1", owner=Owner("wiki", "ada"), kind="oauth", origin="o", version=1, sealed_version=1,
        expires_at=answer.expires_at, created_at="", created_by="", changed_at="", changed_by="",
    )  # fmt: skip
    assert AccountView.of(account).expires_at
    assert expires(account, now=0.0)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", -5, None, [], {}, "soon"])
def test_a_lifetime_that_is_none_is_not_known(seconds: Any) -> None:
    assert token_answer({"access_token": "t", "expires_in": seconds}, 1e9).expires_at == 0.0


@pytest.mark.parametrize("length", [40, 180, 199, 200, 400, 4000])
@pytest.mark.parametrize("before", ["", "x" * 150 + " "])
async def test_no_part_of_a_token_that_a_provider_repeats_is_told(length: int, before: str) -> None:
    """Of a long one that is cut first, the beginning would stay."""
    secret = "".join(f"{n:04x}" for n in range(length // 4))
    web = answering({"error": "invalid_grant", "error_description": f"{before}{secret} is unknown"}, 400)
    with pytest.raises(ProviderRefused) as refused:
        await endpoints.refresh(web, connection(secret))
    assert secret[:12] not in refused.value.detail


@pytest.mark.parametrize(
    "repeated",
    [
        "client_secret=s%26cret%3Da",  # url-encoded
        "Basic " + base64.b64encode(b"c:s%26cret%3Da").decode(),
        "s&cret=a",
    ],
)
@pytest.mark.parametrize("field", ["error", "error_description"])
async def test_nor_a_secret_as_it_stood_in_the_request(repeated: str, field: str) -> None:
    web = answering({"error": "invalid_request", field: repeated}, 400)
    with pytest.raises(ProviderRefused) as refused:
        await endpoints.refresh(web, connection("r-token", "s&cret=a", "client_secret_basic"))
    assert "…" in refused.value.detail
    assert repeated.removeprefix("client_secret=").removeprefix("Basic ") not in refused.value.detail


def test_brackets_within_brackets_are_no_object() -> None:
    assert json_object(DEEP) == {}
    assert json_object(b'{"a":' * 100_000) == {}


async def test_nor_are_they_in_an_id_token() -> None:
    payload = base64.urlsafe_b64encode(DEEP[:9000]).decode()
    answer = token_answer({"access_token": "t", "id_token": f"h.{payload}.s"}, 1.0)
    assert await endpoints.identify(Web(), "", answer) == ""


def test_what_goes_into_a_request_is_not_in_its_representation() -> None:
    injection = Injection(headers={"x-key": "s3cret"}, query={"k": "s3cret"}, environment={"K": "s3cret"})
    assert "s3cret" not in repr(injection)
    assert "x-key" in repr(injection)
