"""What people who may not, or who mean harm, find at policy: every route, times, documents, long names."""

import re
from pathlib import Path

import msgspec
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from libs.common.control.entries import Replica
from libs.common.decision.pins import is_nameable
from libs.common.definitions import Definition as ToolDefinition
from libs.common.errors import BadRequest
from services.access_code import AccessFailed, read
from services.policy.definition import Definition
from services.policy.document.form import Document
from services.policy.document.state import GroupState, State
from services.policy.domain import Server
from services.policy.pins import Sight
from services.policy.rules import MOST
from services.policy.sights import after
from services.policy.store.size import LIMIT
from tests.conftest import eventually
from tests.unit.conftest import SignIn
from tests.unit.policy.conftest import Policy

# -- who may call what -----------------------------------------------------------------------------

OPEN = {"/api/policy/openapi.json", "/healthz", "/readyz"}
NAMES = {"level": "organization", "kind": "tools"}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """The methods and paths of all routes, with names in the path."""
    found = []
    for context in iter_route_contexts(app.routes):
        path = re.sub(r"{(\w+)(?::path)?}", lambda name: NAMES.get(name[1], "x"), context.path or "")
        found += [(method, path) for method in sorted(set(context.methods or ()) - {"HEAD"})]
    return [(method, path) for method, path in found if path not in OPEN and "static" not in path]


@pytest.mark.parametrize("role", ["member", "auditor", ""])
async def test_only_administrators_are_let_in_anywhere(policy: Policy, sign_in: SignIn, role: str) -> None:
    headers = {"authorization": "Bearer none"}
    if role:
        headers = (await sign_in(role, role)).script
        await eventually(lambda: role in policy.app.state.follower.tables.users)
    let_in = []
    every = routes(policy.app)
    assert len(every) > 50
    for method, path in every:
        answer = await policy.api.request(method, path, headers=headers)
        sent_away = answer.headers.get("location", "").startswith("/login")
        if answer.status_code not in {401, 403} and not sent_away:
            let_in.append((method, path, answer.status_code))
    assert not let_in


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
async def test_a_time_that_is_none_in_utc_is_refused(policy: Policy, until: str) -> None:
    off = await policy.api.put("/api/policy/switches/organization/", json={"until": until})
    assert (off.status_code, "UTC" in off.text) == (400, True)
    explained = await policy.api.get(
        "/api/policy/explain", params={"user": "ada", "server": "wiki", "at": until}
    )
    assert (explained.status_code, "UTC" in explained.text) == (400, True)


# -- documents -------------------------------------------------------------------------------------

NOTHING = State(groups={"default": GroupState("Everyone")}, members={}, rules={}, quotas={})


@pytest.mark.parametrize("section", ["rules", "quotas"])
def test_a_document_holds_no_more_rules_than_can_be_made_one_by_one(section: str) -> None:
    body = {"name": "R"} if section == "rules" else {"name": "Q", "of": "user", "per_day": 1}
    for number in (MOST, MOST + 1):
        bodies = {f"r{n}": body for n in range(number)}
        document = Document.model_validate({"version": 1, section: bodies})
        if number == MOST:
            assert len(getattr(document.state(NOTHING, {}, frozenset()), section)) == MOST
        else:
            with pytest.raises(BadRequest, match=f"{section}: there are {number}"):
                document.state(NOTHING, {}, frozenset())


async def test_a_document_that_is_applied_again_is_not_done_before_the_first_time_is(policy: Policy) -> None:
    silent = Replica(id="r1", revision=0, applied_at="", lease=1.0, on_stale="serve")
    await policy.control.put(silent)
    document = {"version": 1, "rules": {"never": {"name": "Never"}}}
    for _ in range(2):
        answer = await policy.api.put("/api/policy/access", json=document)
        assert (answer.status_code, answer.json()["receipt"]["complete"]) == (202, False)
    await policy.control.put(msgspec.structs.replace(silent, revision=1_000_000))
    answer = await policy.api.put("/api/policy/access", json=document)
    assert (answer.status_code, answer.json()["receipt"]["complete"]) == (200, True)


async def test_what_is_missing_in_the_log_is_made_up_for_when_a_document_is_applied_again(
    policy: Policy,
) -> None:
    document = {"version": 1, "rules": {"never": {"name": "Never"}}}
    await policy.api.put("/api/policy/access", json=document)
    await policy.control.remove("rule.never")
    answer = await policy.api.put("/api/policy/access", json=document)
    assert (answer.status_code, answer.json()["receipt"]["complete"]) == (200, True)
    assert await policy.control.get("rule.never") is not None


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nrules: {a: {name: 2026-99-99}}",
        "version: 1\nrules: {a: {name: 2026-01-01}}",
        "version: 1\nrules: {a: {priority: .nan}}",
        "version: 1\nrules: {a: {name: !!set {a}}}",
        "version: 1\n? [a]\n: b",
        "version: !!int 'x'",
        "version: !!bool 'x'",
        "version: !!timestamp 'x'",
        "version: !!binary YQ==",
        "a: &a [x]\nb: *a",
        "version: 1\nversion: 1",
    ],
)
def test_a_file_that_no_document_can_be_made_of_is_told_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(text)
    with pytest.raises(AccessFailed, match=re.escape(str(path))):
        read(path)


# -- what a server calls its tools -----------------------------------------------------------------


def test_a_server_cannot_name_its_tools_so_that_none_can_be_quarantined() -> None:
    """Quotation marks take twice the room in the log, where all of them stand twice when all have changed."""
    names = [f"{n:04}" + '"' * 252 for n in range(2000)]
    assert all(map(is_nameable, names))
    server = Server(slug="evil", definition=Definition(name="E", url="https://e.example/mcp"), version=1)
    for digest in ("1" * 43, "2" * 43):
        definitions = [ToolDefinition(name=name, digest=digest) for name in names]
        offered, pins = after(server, Sight(definitions=definitions, version=9), None, "now")
        pins = {**server.pins, **pins}
        server = Server(slug="evil", definition=server.definition, version=1, features=offered, pins=pins)
    assert server.entry().quarantined.keys() == server.entry().tools.keys() != set()
    assert len(msgspec.json.encode(server.entry())) < LIMIT
