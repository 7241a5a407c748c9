"""The audience rule (RFC 8707): see services/auth/oauth/resources.py."""

import pytest

from libs.common.tokens import InvalidToken
from services.auth.oauth.errors import InvalidTargetError
from services.auth.oauth.resources import audience_of, narrowed
from tests.unit.auth.house import ORIGIN, SERVER, Browser, Client, House

URL = "https://gate.example"


@pytest.mark.parametrize(
    ("resource", "audience"),
    [
        ([], f"{URL}/mcp"),
        ([""], f"{URL}/mcp"),
        ([f"{URL}/mcp"], f"{URL}/mcp"),
        ([f"{URL}/mcp/demo"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/demo/"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/demo/sse"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/demo/sse/"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/demo", f"{URL}/mcp/demo/sse"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/sse"], f"{URL}/mcp"),
        ([f"{URL}:443/mcp/demo"], f"{URL}/mcp/demo"),
        (["HTTPS://Gate.Example/mcp/demo"], f"{URL}/mcp/demo"),
        ([f"{URL}/mcp/demo", f"{URL}/mcp/demo"], f"{URL}/mcp/demo"),
        ([f"{URL}/api"], f"{URL}/api"),
    ],
)
def test_an_audience_there_is(resource: list[str], audience: str) -> None:
    assert audience_of(resource, URL) == audience


@pytest.mark.parametrize(
    "resource",
    [
        [URL],
        [f"{URL}/"],
        ["http://gate.example/mcp"],
        ["https://evil.example/mcp"],
        [f"{URL}.evil.example/mcp"],
        ["https://gate.example@evil.example/mcp"],
        [f"{URL}:8443/mcp"],
        [f"{URL}:99999/mcp"],
        [f"{URL}/mcp/UPPER"],
        [f"{URL}/mcp/-demo"],
        [f"{URL}/mcp/a/b"],
        [f"{URL}/mcp/demo/SSE"],
        [f"{URL}/mcp/demo/sse/sse"],
        [f"{URL}/mcp/one/sse", f"{URL}/mcp/two"],
        [f"{URL}/api/sse"],
        [f"{URL}/mcp/../api"],
        [f"{URL}/mcp/demo?x=1"],
        [f"{URL}/mcp/demo#x"],
        [f"{URL}/console"],
        ["not a uri"],
        ["[::"],
        [f"{URL}/mcp/one", f"{URL}/mcp/two"],
    ],
)
def test_no_such_audience(resource: list[str]) -> None:
    with pytest.raises(InvalidTargetError):
        audience_of(resource, URL)


def test_a_token_may_be_narrower_than_its_grant_and_nothing_else() -> None:
    assert narrowed([], f"{URL}/mcp/demo", URL) == f"{URL}/mcp/demo"
    assert narrowed([f"{URL}/mcp/demo"], f"{URL}/mcp", URL) == f"{URL}/mcp/demo"
    for resource, granted in (("mcp", "mcp/demo"), ("mcp/a", "mcp/b"), ("api", "mcp"), ("mcp/a", "api")):
        with pytest.raises(InvalidTargetError):
            narrowed([f"{URL}/{resource}"], f"{URL}/{granted}", URL)


async def test_without_resource_the_token_is_for_the_gateway_as_a_whole(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser, resource=None)
    assert house.claims(tokens["access_token"], f"{ORIGIN}/mcp").audience == (f"{ORIGIN}/mcp",)


async def test_a_token_is_not_good_for_another_audience(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    for other in (f"{ORIGIN}/mcp/other", f"{ORIGIN}/api", f"{ORIGIN}/mcp", "console"):
        with pytest.raises(InvalidToken) as refused:
            house.claims(tokens["access_token"], other)
        assert refused.value.reason == "token_wrong_audience"


async def test_code_and_refresh_token_are_bound_to_the_resource(browser: Browser, client: Client) -> None:
    other = f"{ORIGIN}/mcp/other"
    code = await client.consent(browser)
    assert (await client.exchange(code, resource=other)).json()["error"] == "invalid_target"
    tokens = (await client.exchange(code, resource=SERVER)).json()
    refused = await client.refresh(tokens["refresh_token"], resource=other)
    assert refused.json()["error"] == "invalid_target"
    assert (await client.refresh(tokens["refresh_token"], resource=SERVER)).status_code == 200


async def test_a_token_for_the_apis_is_admitted_there_and_only_there(
    house: House, browser: Browser, client: Client
) -> None:
    api = (await client.connect(browser, resource=f"{ORIGIN}/api"))["access_token"]
    mcp = (await client.connect(browser))["access_token"]
    statuses = [
        (await house.http().get("/api/auth/grants", headers={"Authorization": f"Bearer {token}"})).status_code
        for token in (api, mcp)
    ]
    assert statuses == [200, 401]
