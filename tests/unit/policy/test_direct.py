"""Learning what a server offers from the server itself."""

import secrets
from typing import Any

import msgspec
import pytest

from libs.common.errors import NotFound
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from tests.conftest import free_port
from tests.unit.policy.conftest import Policy, StartUpstream

REFRESH = "/api/policy/servers/wiki/refresh"


async def test_tools_are_read_from_a_real_server(policy: Policy, upstream: StartUpstream) -> None:
    server = await upstream(("read", "Reads a page.\n\nAt length."), ("write", ""))
    await policy.add("wiki", url=server.url)
    answer = await policy.api.post(REFRESH)
    assert answer.status_code == 200
    assert answer.json()["tools"] == [
        {"name": "read", "description": "Reads a page."},
        {"name": "write", "description": ""},
    ]
    entry = await policy.control.get("server.wiki")
    assert entry is not None
    assert entry["tools"] == ["read", "write"]


async def test_prompts_and_resources_are_read_too_and_a_template_as_its_beginning(
    policy: Policy, upstream: StartUpstream
) -> None:
    server = await upstream(prompts=("ask",), resources=("wiki://home", "wiki://pages/{page}"))
    await policy.add("wiki", url=server.url)
    answer = (await policy.api.post(REFRESH)).json()
    assert answer["tools"] == []
    assert [prompt["name"] for prompt in answer["prompts"]] == ["ask"]
    assert answer["resources"] == [
        {"name": "wiki://home", "description": "A page"},
        {"name": "wiki://pages/*", "description": "wiki://pages/{page}: A page"},
    ]


async def test_reading_the_same_tools_again_changes_nothing(policy: Policy, upstream: StartUpstream) -> None:
    server = await upstream(("read", ""))
    await policy.add("wiki", url=server.url)
    first = (await policy.api.post(REFRESH)).json()
    assert (await policy.api.post(REFRESH)).json()["version"] == first["version"]


async def test_a_server_that_is_not_there_is_named_as_such(policy: Policy) -> None:
    await policy.add("wiki", url=f"http://127.0.0.1:{free_port()}/mcp")
    answer = await policy.api.post(REFRESH)
    assert answer.status_code == 502
    assert answer.json()["type"] == "urn:lockgate:error:upstream-failed"
    assert "connection" in answer.json()["detail"].lower()


async def test_a_server_at_another_path_is_named_as_such(policy: Policy, upstream: StartUpstream) -> None:
    server = await upstream(("read", ""))
    await policy.add("wiki", url=server.url.replace("/mcp", "/elsewhere"))
    assert "404" in (await policy.api.post(REFRESH)).json()["detail"]


async def test_a_server_that_never_answers_is_given_up_in_time(policy: Policy, silent_port: int) -> None:
    await policy.add("wiki", url=f"http://127.0.0.1:{silent_port}/mcp")
    assert "did not answer within 2 seconds" in (await policy.api.post(REFRESH)).json()["detail"]


async def test_a_server_that_wants_a_credential_says_so(policy: Policy, upstream: StartUpstream) -> None:
    server = await upstream(("read", ""), wants=("x-api-key", "k"))
    await policy.add("wiki", url=server.url)
    detail = (await policy.api.post(REFRESH)).json()["detail"]
    assert "401" in detail
    assert "credential" in detail


async def _vault(policy: Policy, key: str | None) -> list[OpenCredential]:
    """Answers for the credentials service; what it was asked is in the list that it returns."""
    asked: list[OpenCredential] = []

    async def open_credential(query: OpenCredential) -> SealedCredential:
        asked.append(query)
        if key is None:
            raise NotFound(f"No credential is stored for {query.slug}.")
        context = credential_context(query.slug, query.user, 3)
        injection = msgspec.json.encode(Injection(headers={"x-api-key": key}))
        return SealedCredential(version=3, box=seal(injection, query.public_key, context))

    await policy.control.bus.serve(OPEN_CREDENTIAL, OpenCredential, open_credential)
    await policy.control.bus.client.flush()
    return asked


async def test_the_organizations_credential_is_sent_to_the_server(
    policy: Policy, upstream: StartUpstream
) -> None:
    key = secrets.token_hex()
    await _vault(policy, key)
    server = await upstream(("read", ""), wants=("x-api-key", key))
    await policy.add("wiki", url=server.url, auth="api_key")
    answer = await policy.api.post(REFRESH)
    assert [tool["name"] for tool in answer.json()["tools"]] == ["read"]
    assert key not in answer.text


async def test_the_vault_is_told_who_asks_and_where_the_key_will_be_sent(policy: Policy) -> None:
    asked = await _vault(policy, None)
    await policy.add("wiki", url="https://WIKI.example.com/mcp", auth="api_key")
    await policy.api.post(REFRESH)
    assert [(query.asker, query.origin) for query in asked] == [("policy", "https://wiki.example.com:443")]


async def test_a_key_that_the_server_repeats_in_its_error_is_not_shown(
    policy: Policy, upstream: StartUpstream
) -> None:
    key = secrets.token_hex()
    await _vault(policy, key)
    server = await upstream(("read", ""), wants=("x-api-key", "another"))
    await policy.add("wiki", url=server.url, auth="api_key")
    answer = await policy.api.post(REFRESH)
    assert "refuses the one it got" in answer.json()["detail"]
    assert server.seen[-1]["x-api-key"] == key
    assert key not in answer.text


@pytest.mark.parametrize(
    ("vault", "said"), [(True, "No credential is stored for wiki"), (False, "the vault does not answer")]
)
async def test_a_missing_credential_is_the_reason_given(policy: Policy, vault: bool, said: str) -> None:
    if vault:
        await _vault(policy, None)
    await policy.add("wiki", auth="api_key")
    answer = await policy.api.post(REFRESH)
    assert answer.status_code == 502
    assert said in answer.json()["detail"]


async def test_tools_can_be_named_by_hand_and_keep_their_descriptions(
    policy: Policy, upstream: StartUpstream
) -> None:
    server = await upstream(("read", "Reads."))
    await policy.add("wiki", url=server.url)
    await policy.api.post(REFRESH)
    answer = await policy.api.put(
        "/api/policy/servers/wiki/tools", json={"tools": ["write", "read", "write"]}
    )
    assert answer.json()["tools"] == [
        {"name": "write", "description": ""},
        {"name": "read", "description": "Reads."},
    ]


@pytest.mark.parametrize("tools", [[""], ["a\nb"], ["x" * 300]])
async def test_a_bad_name_of_a_tool_is_refused(policy: Policy, tools: Any) -> None:
    await policy.add("wiki")
    answer = await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": tools})
    assert answer.status_code == 400
