"""Attacks on people's browsers: requests and pages of other sites, and what URLs give away."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from libs.common.web import frame
from services.auth.parts import PAGES
from tests.unit.auth.attacks.table import MALLORY, MALLORYS_PASSWORD, Scene, attack, said
from tests.unit.auth.house import EMAIL, PASSWORD, REDIRECT, House, query

FOREIGN = "403 not from our own pages"
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


def routes(house: House) -> Iterator[APIRoute]:
    """Every route of a page or an API, which are those at which a cookie counts."""

    def walk(found: list[BaseRoute]) -> Iterator[APIRoute]:
        for route in found:
            if isinstance(route, APIRoute):
                yield route
            elif included := getattr(route, "original_router", None):
                prefix = route.include_context.prefix  # type: ignore[attr-defined]
                for inner in walk(included.routes):
                    yield inner if not prefix else _moved(inner, prefix)

    yield from walk(house.app.router.routes)


def _moved(route: APIRoute, prefix: str) -> APIRoute:
    return APIRoute(prefix + route.path, route.endpoint, methods=route.methods)


def paths(house: House, methods: set[str]) -> list[tuple[str, str]]:
    """Method and path of each such route, with something for its parameters."""
    found = [
        (m, re.sub(r"{\w+}", "x", r.path)) for r in routes(house) for m in (r.methods or set()) & methods
    ]
    assert len(found) > 10, "the routes are found"
    return sorted(found)


# -- cross-site requests -------------------------------------------------------------------------------


@attack("4.7", told=FOREIGN)
async def every_form_and_every_change_sent_from_another_site(scene: Scene) -> str:
    """With the cookies of somebody who is signed in: SameSite=Lax is not all that there is."""
    senders: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ]
    told = {}
    for method, path in paths(scene.house, CHANGING):
        for sender in senders:
            headers = {"Accept": "text/html", **sender}
            form = {"email": EMAIL, "password": PASSWORD, "decision": "allow", "active": "false"}
            answer = await scene.victim.http.request(method, path, data=form, headers=headers)
            why = "own pages" if "did not come from one of Lockgate" in answer.text else "something else"
            told[method, path, str(sender)] = f"{answer.status_code} not from our {why}"
    assert (await scene.victim.get("/account")).status_code == 200, "nobody was signed out by it"
    odd = {case: reason for case, reason in told.items() if reason != FOREIGN}
    return ", ".join(map(str, odd.items())) or FOREIGN


@attack("4.7", told="303 with the state it came with")
async def a_code_of_the_attackers_planted_in_the_victims_client(scene: Scene) -> str:
    """The client's own state comes back unchanged, whatever is in it, and PKCE binds the code to it."""
    state = "x&code=evil#\"<'%0d%0a ü"
    answer = await scene.victim.post(scene.client.authorize_url(state=state), {"decision": "allow"})
    same = query(answer)["state"] == state and len(re.findall("[?&]code=", answer.headers["location"])) == 1
    return f"{answer.status_code} with {'the state it came with' if same else 'another state'}"


@attack("4.7", told="403")
async def a_login_as_the_attacker_forced_on_the_victim(scene: Scene) -> str:
    await scene.mallory()
    browser, form = scene.house.browser(), {"email": MALLORY, "password": MALLORYS_PASSWORD}
    answer = await browser.post("/login", form, {"Origin": "https://evil.example"})
    assert not browser.http.cookies
    return str(answer.status_code)


@attack("4.16", told="DENY, frame-ancestors 'none'", recorded="consented: foreign_redirect_uri")
async def every_page_in_a_frame(scene: Scene) -> str:
    """Clickjacking."""
    pages = [await scene.victim.get(path) for _, path in paths(scene.house, {"GET"})]
    pages += [await scene.victim.get(scene.client.authorize_url()), await scene.house.browser().get("/login")]
    pages += [await scene.victim.get(scene.client.authorize_url(redirect_uri="https://evil.example"))]
    html = [page for page in pages if "text/html" in page.headers.get("content-type", "")]
    assert len(html) > 8
    (told,) = {
        (page.headers["x-frame-options"], page.headers["content-security-policy"].rpartition("; ")[2])
        for page in html
    }
    return ", ".join(told)


@attack("4.16", told="no script, style or form of anybody else's")
async def injecting_markup_by_the_name_of_a_client(scene: Scene) -> str:
    name = '</title><script>alert(1)</script><form action="https://evil.example"><img src=x onerror=alert(1)>'
    evil = await scene.house.client(client_name=name)
    page = await scene.victim.get(evil.authorize_url())
    policy = page.headers["content-security-policy"]
    nonces = set(re.findall(r"'nonce-([^']+)'", policy))
    assert "unsafe" not in policy and "default-src 'none'" in policy and "base-uri 'none'" in policy
    tags = re.findall(r"<(script|style|form|img)\b([^>]*)>", page.text)
    own = all(
        (f'nonce="{nonce}"' in attributes if tag in {"script", "style"} else 'action="/' in attributes)
        for tag, attributes in tags
        for nonce in nonces
    )
    return f"no script, style or form of {'anybody else' if own else 'its own: ' + str(tags)}'s".replace(
        "''s", "'s"
    )


# -- what a URL gives away -----------------------------------------------------------------------------


@attack("4.2", told="no-referrer; same-origin, and nothing is loaded from elsewhere")
async def reading_codes_in_the_referrer(scene: Scene) -> str:
    answer = await scene.victim.post(scene.client.authorize_url(), {"decision": "allow"})
    page = await scene.victim.get(scene.client.authorize_url())
    sources = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    elsewhere = [source for source in sources if urlsplit(source).netloc]
    policies = f"{answer.headers['referrer-policy']}; {page.headers['referrer-policy']}"
    return f"{policies}, and {elsewhere or 'nothing'} is loaded from elsewhere"


@attack("4.3", told="no-store")
async def reading_pages_and_tokens_in_a_cache(scene: Scene) -> str:
    url = scene.client.authorize_url()
    answers = [await scene.victim.get(path) for path in ("/account", "/users", url)]
    answers += [await scene.victim.post(url, {"decision": "allow"})]
    answers += [await scene.client.exchange(query(answers[-1])["code"])]
    (told,) = {answer.headers["cache-control"] for answer in answers}
    return told


@attack("4.3", told="200 Sign in")
async def a_password_in_the_url_of_the_login(scene: Scene) -> str:
    """It signs nobody in, so that no link, history or log comes to hold one."""
    browser = scene.house.browser()
    answer = await browser.http.get("/login", params={"email": EMAIL, "password": PASSWORD})
    assert not browser.http.cookies and PASSWORD not in answer.text
    return said(answer)


@attack("4.12", told="303")
async def a_redirect_that_carries_the_password_on(scene: Scene) -> str:
    """With 307 the browser would post the form, and with it the password, to the client."""
    login = await scene.house.browser().sign_in(next=scene.client.authorize_url())
    consent = await scene.victim.post(scene.client.authorize_url(), {"decision": "allow"})
    (told,) = {answer.status_code for answer in (login, consent)}
    return str(told)


@attack("4.11", told="303 to /")
async def a_login_that_leads_to_the_attackers_site(scene: Scene) -> str:
    targets = (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:x",
    )
    (told,) = {said(await scene.house.browser().sign_in(next=target)) for target in targets}
    return told


@attack(
    "RFC 9110, 5.5",
    told="no header of the attacker's",
    recorded=("consented: denied_by_user", "consented: foreign_redirect_uri"),
)
async def injecting_headers(scene: Scene) -> str:
    line = "x\r\nSet-Cookie: lockgate=evil\r\nX-Evil: 1"
    stranger = scene.house.browser()
    answers = [
        await scene.victim.post(scene.client.authorize_url(state=line), {"decision": "allow"}),
        await scene.victim.post(scene.client.authorize_url(state=line), {"decision": "deny"}),
        await scene.victim.get(scene.client.authorize_url(redirect_uri=f"{REDIRECT}{line}")),
        await scene.victim.get(scene.client.authorize_url(response_type=line, scope=line)),
        await stranger.sign_in(next=f"/account{line}"),
        await stranger.get(scene.client.authorize_url(state=line)),
        await scene.client.token(grant_type=line),
        await scene.house.http().post(
            "/oauth/register", json={"client_name": line, "redirect_uris": [REDIRECT]}
        ),
    ]
    for answer in answers:
        assert "x-evil" not in answer.headers
        assert not any("evil" in value for value in answer.headers.get_list("set-cookie"))
        assert not any(set("\r\n") & set(value) for value in answer.headers.values())
    return "no header of the attacker's"


@attack("4.17", told="query only, no message to another window")
async def listening_in_another_window(scene: Scene) -> str:
    metadata = (await scene.house.http().get("/.well-known/oauth-authorization-server")).json()
    assert metadata["response_modes_supported"] == ["query"]
    for mode in ("web_message", "fragment", "form_post"):
        url = scene.client.authorize_url(response_mode=mode)
        answer = await scene.victim.post(url, {"decision": "allow"})
        assert (answer.status_code, "code" in query(answer)) == (303, True), "in the query all the same"
    templates = [
        page for folder in (PAGES, Path(frame.__file__).parent / "pages") for page in folder.glob("*")
    ]
    assert len(templates) > 10
    speaks = [page.name for page in templates if re.search("postMessage|window.opener", page.read_text())]
    return f"query only, {speaks or 'no'} message to another window"
