"""Single sign-on against a real OpenID provider: who comes in, as whom, and what is not an answer of it
(OpenID Connect Core 1.0; RFC 9700 for the attacks)."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from libs.common.control.entries import Group
from libs.common.records import AdminEvent
from libs.common.requests import ASSIGN_GROUP, AssignedGroup, AssignGroup
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.npm import Packages, packages
from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, SAME_ORIGIN, Browser, House, query
from tests.unit.auth.openid_provider import ADA, CALLBACK, OpenIdProvider

__all__ = ["packages"]


@pytest.fixture(scope="module")
def processes(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenIdProvider]:
    """One provider process for all tests here, each of which says whom it knows."""
    provider = OpenIdProvider(packages, tmp_path_factory.mktemp("provider"))
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
def provider(processes: OpenIdProvider) -> OpenIdProvider:
    processes.knows(ada=ADA)
    return processes


@asynccontextmanager
async def running(settings: AuthSettings, **changes: object) -> AsyncIterator[House]:
    app = create_app(AuthSettings(**{**settings.model_dump(), **changes}))
    house = House(app, app.state.parts.settings)
    async with app.router.lifespan_context(app):
        yield house
        await house.close()


@pytest.fixture
async def organization(settings: AuthSettings, provider: OpenIdProvider) -> AsyncIterator[House]:
    """Lockgate with the provider; people with addresses at example.com join by themselves."""
    async with running(settings, **provider.settings()) as house:
        yield house


async def begin(browser: Browser, next: str = "/account") -> str:
    """Where the browser is sent to."""
    answer = await browser.get(f"/login/sso?{urlencode({'next': next})}")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def come_in(
    browser: Browser, provider: OpenIdProvider, account: str = "ada", next: str = "/account"
) -> httpx2.Response:
    """All of a sign-in: the answer to what the browser brings back."""
    return await browser.get(await provider.sign_in(await begin(browser, next), account))


async def who(browser: Browser) -> httpx2.Response:
    return await browser.get("/account")


def refused(house: House) -> str:
    """Why the last sign-in was refused, for the record."""
    event = house.event("signed_in")
    assert event.outcome == "refused"
    assert urlsplit(house.settings.auth_oidc_issuer).netloc in event.detail
    return event.reason


def changed(url: str, **changes: str | None) -> str:
    """`url` with other parameters."""
    parts = urlsplit(url)
    params = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    given = {name: value for name, value in params.items() if value is not None}
    return parts._replace(query=urlencode(given)).geturl()


# -- coming in --------------------------------------------------------------------------------------


async def test_somebody_of_an_allowed_domain_joins_as_a_member(
    organization: House, provider: OpenIdProvider
) -> None:
    browser = organization.browser()
    answer = await come_in(browser, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    page = await who(browser)
    assert "Ada Lovelace" in page.text
    assert "member" in page.text
    created = organization.events(AdminEvent)[-1]
    assert (created.event, created.actor, created.detail) == ("user_created", "sso", f"by {provider.issuer}")
    event = organization.event("signed_in")
    assert (event.outcome, event.email) == ("ok", "ada@example.com")
    assert event.detail == f"single sign-on by {provider.issuer}"


async def test_the_request_is_bound_to_this_browser_and_this_sign_in(
    organization: House, provider: OpenIdProvider
) -> None:
    first, second = [parse_qs(urlsplit(await begin(organization.browser())).query) for _ in range(2)]
    assert first["redirect_uri"] == [CALLBACK]
    assert first["response_type"] == ["code"]
    assert first["code_challenge_method"] == ["S256"]
    assert first["scope"] == ["openid email profile"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) >= 43
        assert first[name] != second[name]


async def test_the_second_time_it_is_the_same_account(organization: House, provider: OpenIdProvider) -> None:
    await come_in(organization.browser(), provider)
    user = organization.event("signed_in").user
    provider.knows(ada={**ADA, "email": "ada.king@example.com"})
    await come_in(organization.browser(), provider)
    assert organization.event("signed_in").user == user
    assert organization.event("signed_in").email == "ada@example.com"


async def test_another_person_who_is_given_the_address_does_not_get_the_account(
    organization: House, provider: OpenIdProvider
) -> None:
    await come_in(organization.browser(), provider)
    provider.knows(grace=ADA)
    browser = organization.browser()
    answer = await come_in(browser, provider, "grace")
    assert answer.status_code == 403
    assert "belongs to another identity" in answer.text
    assert refused(organization) == "sso_other_identity"
    assert (await who(browser)).status_code == 303


async def test_a_password_account_with_the_verified_address_is_connected_and_keeps_its_role(
    organization: House, provider: OpenIdProvider
) -> None:
    user = await organization.add_user("ada@example.com", "auditor")
    await come_in(organization.browser(), provider)
    assert organization.event("signed_in").user == user["id"]
    linked = organization.event("identity_linked")
    assert (linked.user, linked.detail) == (user["id"], f"to {provider.issuer}")
    assert (await organization.signed_in("ada@example.com", "another long password")) is not None


async def test_somebody_who_was_invited_has_joined_with_that(
    organization: House, provider: OpenIdProvider
) -> None:
    admin = await organization.signed_in()
    invited = await admin.post("/users", {"email": "ada@example.com", "role": "auditor"})
    link = invited.text.partition(f"{ORIGIN}/login/invitation/")[2].partition("<")[0]
    assert (await organization.browser().get(f"/login/invitation/{link}")).status_code == 200
    browser = organization.browser()
    assert (await come_in(browser, provider)).status_code == 303
    assert "auditor" in (await who(browser)).text
    found = organization.parts.store.users.by_email("ada@example.com")
    assert found
    assert found[0].joined_at
    assert (await organization.browser().get(f"/login/invitation/{link}")).status_code == 404


async def test_claims_may_come_in_the_id_token_signed_with_es256(
    settings: AuthSettings, packages: Packages, tmp_path: Path
) -> None:
    provider = OpenIdProvider(packages, tmp_path)
    provider.start(algorithm="ES256", claimsInIdToken=True, authMethod="client_secret_post")
    try:
        async with running(settings, **provider.settings()) as house:
            assert (await come_in(house.browser(), provider)).status_code == 303
    finally:
        provider.stop()


async def test_new_keys_of_the_provider_are_fetched_when_they_are_used(
    settings: AuthSettings, packages: Packages, tmp_path: Path
) -> None:
    provider = OpenIdProvider(packages, tmp_path)
    provider.start()
    try:
        async with running(settings, **provider.settings()) as house:
            assert (await come_in(house.browser(), provider)).status_code == 303
            provider.restart()
            assert (await come_in(house.browser(), provider)).status_code == 303
    finally:
        provider.stop()


async def test_two_tabs_may_sign_in_at_the_same_time(organization: House, provider: OpenIdProvider) -> None:
    browser = organization.browser()
    urls = [await begin(browser, next) for next in ("/account", "/activity")]
    answers = [await browser.get(await provider.sign_in(url, "ada")) for url in urls]
    assert [answer.headers.get("location") for answer in answers] == ["/account", "/activity"]


async def test_signing_in_again_is_asked_of_the_provider(organization: House) -> None:
    answer = await organization.browser().get("/login/sso?again=1")
    assert query(answer)["prompt"] == "login"


# -- who stays out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"email_verified": False}, "sso_unverified_email"),
        ({"email_verified": None}, "sso_unverified_email"),
        ({"email": "ada@evil.example"}, "sso_foreign_domain"),
        ({"email": "ada@sub.example.com"}, "sso_foreign_domain"),
        ({"email": "ada@evil.example@example.com "}, "sso_no_email"),
        ({"email": None}, "sso_no_email"),
    ],
)
async def test_an_address_that_does_not_entitle(
    organization: House, provider: OpenIdProvider, claims: dict[str, object], reason: str
) -> None:
    said = {name: value for name, value in {**ADA, **claims}.items() if value is not None}
    provider.knows(ada=said)
    browser = organization.browser()
    answer = await come_in(browser, provider)
    assert answer.status_code == 403
    assert "Try again" in answer.text
    assert refused(organization) == reason
    assert (await who(browser)).status_code == 303


async def test_an_unverified_address_does_not_open_the_account_that_has_it(
    organization: House, provider: OpenIdProvider
) -> None:
    provider.knows(mallory={"email": EMAIL, "email_verified": False})
    browser = organization.browser()
    assert (await come_in(browser, provider, "mallory")).status_code == 403
    assert not organization.parts.store.identities.of(organization.parts.store.users.page("", 1)[0].id)


async def test_an_address_of_a_provider_that_is_trusted_with_them(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    async with running(settings, **provider.settings(auth_oidc_trust_email=True)) as house:
        provider.knows(ada={"email": "ada@example.com"})
        assert (await come_in(house.browser(), provider)).status_code == 303
        provider.knows(grace={"email": "grace@example.com", "email_verified": False})
        assert (await come_in(house.browser(), provider, "grace")).status_code == 403


async def test_nobody_joins_by_themselves_unless_that_is_wanted(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    async with running(settings, **provider.settings(auth_oidc_join="off")) as house:
        answer = await come_in(house.browser(), provider)
        assert answer.status_code == 403
        assert "Ask an administrator to invite you" in answer.text
        assert refused(house) == "sso_not_a_member"


async def test_somebody_who_is_deactivated_stays_out(organization: House, provider: OpenIdProvider) -> None:
    await come_in(organization.browser(), provider)
    user = organization.event("signed_in").user
    admin = await organization.signed_in()
    await admin.http.patch(f"/api/auth/users/{user}", json={"active": False}, headers=SAME_ORIGIN)
    browser = organization.browser()
    answer = await come_in(browser, provider)
    assert (answer.status_code, refused(organization)) == (403, "inactive")
    assert (await who(browser)).status_code == 303


async def test_a_deactivated_password_account_is_not_connected(
    organization: House, provider: OpenIdProvider
) -> None:
    user = await organization.add_user("ada@example.com")
    admin = await organization.signed_in()
    await admin.http.patch(f"/api/auth/users/{user['id']}", json={"active": False}, headers=SAME_ORIGIN)
    assert (await come_in(organization.browser(), provider)).status_code == 403
    assert organization.parts.store.identities.of(user["id"]) == []


async def test_who_gives_up_at_the_provider_reads_that_and_may_try_again(
    organization: House, provider: OpenIdProvider
) -> None:
    browser = organization.browser()
    answer = await browser.get(await provider.sign_in(await begin(browser), "ada", give_up=True))
    assert answer.status_code == 400
    assert "did not let you in" in answer.text
    assert "/login/sso?next=/account" in answer.text
    assert refused(organization) == "sso_denied"


# -- role and group ---------------------------------------------------------------------------------

ROLES = {
    "auth_oidc_scopes": "openid email profile roles",
    "auth_oidc_role_claim": "roles",
    "auth_oidc_roles": "gate admins=admin,revision=auditor",
}


@pytest.mark.parametrize(
    ("said", "role"),
    [
        (["revision", "gate admins", "other"], "admin"),
        (["revision"], "auditor"),
        ("revision", "auditor"),
        (["Gate Admins", "admin"], "member"),
        ([], "member"),
        (None, "member"),
        ({"admin": True}, "member"),
    ],
)
async def test_the_role_is_what_the_claim_says(
    settings: AuthSettings, provider: OpenIdProvider, said: object, role: str
) -> None:
    provider.knows(ada={**ADA, "roles": said})
    async with running(settings, **provider.settings(**ROLES)) as house:
        await come_in(house.browser(), provider)
        assert house.parts.store.users.get(house.event("signed_in").user).role == role


async def test_the_role_follows_the_claim_at_each_sign_in(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    async with running(settings, **provider.settings(**ROLES)) as house:
        browser = house.browser()
        provider.knows(ada={**ADA, "roles": ["gate admins"]})
        await come_in(browser, provider)
        assert (await browser.get("/users")).status_code == 200
        provider.knows(ada=ADA)
        await come_in(house.browser(), provider)
        assert (await browser.get("/users")).status_code == 403
        event = house.events(AdminEvent)[-1]
        assert (event.event, event.actor) == ("user_changed", "sso")
        assert [json.loads(state)["role"] for state in (event.before, event.after)] == ["admin", "member"]


async def test_the_last_administrator_stays_one(settings: AuthSettings, provider: OpenIdProvider) -> None:
    provider.knows(root={"email": EMAIL, "email_verified": True})
    async with running(settings, **provider.settings(**ROLES)) as house:
        browser = house.browser()
        assert (await come_in(browser, provider, "root")).status_code == 303
        assert (await browser.get("/users")).status_code == 200


GROUPS = {"auth_oidc_scopes": "openid email profile roles", "auth_oidc_group_claim": "teams"}


async def test_the_group_is_asked_of_policy_with_what_the_claim_says(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    provider.knows(ada={**ADA, "teams": ["Sales", "All"]})
    async with running(settings, **provider.settings(**GROUPS)) as house:
        asked: list[AssignGroup] = []

        async def assign(query: AssignGroup) -> AssignedGroup:
            asked.append(query)
            return AssignedGroup(group="sales", complete=True)

        # In place of the policy service, which is the other side of this contract.
        await house.parts.accounts.bus.serve(ASSIGN_GROUP, AssignGroup, assign)
        assert (await come_in(house.browser(), provider)).status_code == 303
        assert [query.groups for query in asked] == []  # no group of such a name: they are in the default one

        house.app.state.follower.tables.groups["g1"] = Group(version=1, id="g1", name="Sales")
        assert (await come_in(house.browser(), provider)).status_code == 303
        assert [(query.groups, query.email) for query in asked] == [(["Sales", "All"], "ada@example.com")]
        assert asked[0].user == house.event("signed_in").user


async def test_nobody_comes_in_while_their_group_cannot_be_set(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    provider.knows(ada={**ADA, "teams": "Sales"})
    async with running(settings, **provider.settings(**GROUPS)) as house:
        house.app.state.follower.tables.groups["g1"] = Group(version=1, id="g1", name="Sales")
        answer = await come_in(house.browser(), provider)
        assert (answer.status_code, refused(house)) == (503, "unavailable")


# -- attacks ----------------------------------------------------------------------------------------


async def test_an_answer_counts_once(organization: House, provider: OpenIdProvider) -> None:
    browser = organization.browser()
    back = await provider.sign_in(await begin(browser), "ada")
    assert (await browser.get(back)).status_code == 303
    again = await browser.get(back)
    assert (again.status_code, refused(organization)) == (400, "sso_unknown_state")


async def test_an_answer_counts_in_the_browser_that_asked(
    organization: House, provider: OpenIdProvider
) -> None:
    """Login CSRF: the attacker's own answer in the victim's browser (RFC 9700, section 4.7)."""
    back = await provider.sign_in(await begin(organization.browser()), "ada")
    victim = organization.browser()
    await begin(victim)  # even one that is signing in itself
    answer = await victim.get(back)
    assert (answer.status_code, refused(organization)) == (400, "sso_unknown_state")
    assert (await who(victim)).status_code == 303


@pytest.mark.parametrize("state", [None, "", "something else"])
async def test_an_answer_without_the_state_is_none(
    organization: House, provider: OpenIdProvider, state: str | None
) -> None:
    browser = organization.browser()
    back = await provider.sign_in(await begin(browser), "ada")
    answer = await browser.get(changed(back, state=state))
    assert (answer.status_code, refused(organization)) == (400, "sso_unknown_state")


@pytest.mark.parametrize("issuer", [None, "https://evil.example"])
async def test_an_answer_of_another_issuer_is_refused(
    organization: House, provider: OpenIdProvider, issuer: str | None
) -> None:
    """Mix-up (RFC 9207, RFC 9700, section 4.4): this provider says that it names itself in each answer."""
    browser = organization.browser()
    back = await provider.sign_in(await begin(browser), "ada")
    answer = await browser.get(changed(back, iss=issuer))
    assert (answer.status_code, refused(organization)) == (400, "sso_wrong_issuer")


async def test_a_code_of_somebody_elses_sign_in_is_refused(
    organization: House, provider: OpenIdProvider
) -> None:
    """Code injection (RFC 9700, section 4.5): the code does not fit this browser's PKCE verifier."""
    stolen = parse_qs(urlsplit(await provider.sign_in(await begin(organization.browser()), "ada")).query)[
        "code"
    ][0]
    attacker = organization.browser()
    back = await provider.sign_in(await begin(attacker), "mallory")
    answer = await attacker.get(changed(back, code=stolen))
    assert (answer.status_code, refused(organization)) == (502, "sso_provider_failed")
    assert (await who(attacker)).status_code == 303


async def test_a_session_that_was_there_before_is_replaced(
    organization: House, provider: OpenIdProvider
) -> None:
    """Session fixation: what an attacker has planted, or used before, is not the session afterwards."""
    browser = await organization.signed_in()
    before = dict(browser.http.cookies)
    await come_in(browser, provider)
    assert "Ada Lovelace" in (await who(browser)).text
    old = organization.browser()
    old.http.cookies.update(before)
    assert (await who(old)).status_code == 303


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "/\\evil.example", "/login/sso"])
async def test_nobody_is_led_elsewhere_afterwards(
    organization: House, provider: OpenIdProvider, next: str
) -> None:
    answer = await come_in(organization.browser(), provider, next=next)
    assert answer.headers["location"] == "/"


async def test_words_of_the_answer_do_not_reach_the_page(organization: House) -> None:
    browser = organization.browser()
    state = query(await browser.get("/login/sso"))["state"]
    issuer = organization.settings.auth_oidc_issuer
    hostile = {"state": state, "iss": issuer, "error": "<b>x", "error_description": "Call 555-1234"}
    answer = await browser.get(f"/login/sso/callback?{urlencode(hostile)}")
    assert answer.status_code == 400
    assert "555" not in answer.text
    assert "<b>" not in answer.text


async def test_a_provider_that_is_down_is_told_in_words(
    settings: AuthSettings, packages: Packages, tmp_path: Path
) -> None:
    provider = OpenIdProvider(packages, tmp_path)
    async with running(settings, **provider.settings()) as house:
        answer = await house.browser().get("/login/sso")
        assert answer.status_code == 502
        assert "does not answer as it should" in answer.text
        assert refused(house) == "sso_provider_failed"


async def test_a_provider_that_calls_itself_something_else_is_refused(
    settings: AuthSettings, packages: Packages, tmp_path: Path
) -> None:
    provider = OpenIdProvider(packages, tmp_path)
    provider.start(issuer=f"http://localhost:{provider.port}")
    try:
        async with running(settings, **provider.settings()) as house:
            answer = await house.browser().get("/login/sso")
            assert answer.status_code == 502
            assert "its metadata says that it is" in house.event("signed_in").detail
    finally:
        provider.stop()


# -- passwords beside it ----------------------------------------------------------------------------


async def test_without_a_provider_there_is_no_such_place(house: House) -> None:
    assert (await house.browser().get("/login/sso")).status_code == 404
    assert "Continue with" not in (await house.browser().get("/login")).text


async def test_the_login_page_offers_both(organization: House) -> None:
    page = (await organization.browser().get("/login?next=/activity")).text
    assert "/login/sso?next=/activity" in page
    assert 'name="password"' in page


async def test_with_passwords_off_there_is_no_form_and_no_password_is_taken(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    async with running(settings, **provider.settings(auth_password_login="off")) as house:
        browser = house.browser()
        assert 'name="password"' not in (await browser.get("/login")).text
        answer = await browser.sign_in(EMAIL, PASSWORD)
        assert answer.status_code == 401
        assert house.event("signed_in").reason == "password_login_off"
        assert (await who(browser)).status_code == 303
        assert (await come_in(browser, provider)).status_code == 303


async def test_in_an_emergency_the_first_administrator_alone_has_a_password(
    settings: AuthSettings, provider: OpenIdProvider
) -> None:
    async with running(settings, **provider.settings()) as house:
        await house.add_user("grace@example.com", "admin")
    async with running(settings, **provider.settings(auth_password_login="administrator")) as house:
        assert (await house.browser().sign_in()).status_code == 303
        answer = await house.browser().sign_in("grace@example.com", "another long password")
        assert answer.status_code == 401
        assert "is not right" in answer.text


async def test_an_administrator_can_disconnect_an_identity(
    organization: House, provider: OpenIdProvider
) -> None:
    await come_in(organization.browser(), provider)
    user = organization.event("signed_in").user
    admin = await organization.signed_in()
    security = (await admin.http.get(f"/api/auth/users/{user}/security")).json()
    assert security["password"] is False
    assert [identity["subject"] for identity in security["identities"]] == ["ada"]
    answer = await admin.post(f"/users/{user}/security/unlink")
    assert answer.status_code == 303
    event = organization.events(AdminEvent)[-1]
    assert (event.event, event.before) == ("identity_unlinked", f"ada at {provider.issuer}")
    provider.knows(grace=ADA)
    await come_in(organization.browser(), provider, "grace")
    assert organization.event("signed_in").user == user


async def test_who_signs_in_by_the_provider_is_sent_there_for_second_factors(
    organization: House, provider: OpenIdProvider
) -> None:
    browser = organization.browser()
    await come_in(browser, provider)
    page = (await browser.get("/account/security")).text
    assert "kept there" in page
    answer = await browser.post("/account/security/app", {"proof": ""})
    assert answer.status_code == 409
    assert ORIGIN not in answer.headers.get("location", "")
