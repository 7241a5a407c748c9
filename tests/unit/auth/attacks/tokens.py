"""Attacks with access tokens and refresh tokens, and on their signatures."""

import base64
import hmac
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.tokens import ACCESS_TYPE, CONSOLE_AUDIENCE, CONSOLE_TYPE, InvalidToken, Verifier, standing
from tests.unit.auth.attacks.table import Scene, attack, said
from tests.unit.auth.house import EMAIL, ORIGIN, REDIRECT, SERVER

API = f"{ORIGIN}/api"
OTHER = f"{ORIGIN}/mcp/other"


async def admitted(scene: Scene, token: str, audience: str = API, typ: str = ACCESS_TYPE) -> str:
    """What a service says to the bearer of `token`, and the reason that it has for that."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = await scene.house.http().get("/api/auth/grants", headers=headers)
    tables = scene.house.app.state.follower.tables
    try:
        standing(tables, Verifier(tables, ORIGIN).verify(token, audience, typ=typ))
    except InvalidToken as error:
        return f"{answer.status_code} {error.reason}"
    return f"{answer.status_code} admitted"


# -- access tokens -------------------------------------------------------------------------------------


@attack("2.3", "4.6", "4.9", "4.10", told="401 token_wrong_audience")
async def a_token_for_one_server_shown_to_another(scene: Scene) -> str:
    """As a compromised server would do with the tokens that it is shown."""
    token = (await scene.client.connect(scene.victim, resource=SERVER))["access_token"]
    assert scene.house.claims(token, SERVER).audience == (SERVER,)
    (told,) = {
        await admitted(scene, token, audience) for audience in (OTHER, API, f"{ORIGIN}/mcp", "console")
    }
    return told


@attack("4.9", told="303 invalid_target", recorded="consented: wrong_resource")
async def a_counterfeit_server_that_wants_a_token_for_itself(scene: Scene) -> str:
    elsewhere = ("https://evil.example/mcp/demo", f"{ORIGIN}.evil.example/mcp/demo", f"{ORIGIN}/mcp/a/b")
    urls = [scene.client.authorize_url(resource=resource) for resource in elsewhere]
    (told,) = {said(await scene.victim.get(url)) for url in urls}
    return told


@attack(
    "2.3",
    "4.10",
    told="400 invalid_target",
    recorded=("granted: wrong_resource", "refreshed: wrong_resource"),
)
async def a_code_or_refresh_token_turned_into_a_token_for_more(scene: Scene) -> str:
    code = await scene.client.consent(scene.victim, resource=SERVER)
    wider = [said(await scene.client.exchange(code, resource=more)) for more in (OTHER, f"{ORIGIN}/mcp", API)]
    tokens = (await scene.client.exchange(code)).json()
    wider += [said(await scene.client.refresh(tokens["refresh_token"], resource=OTHER))]
    (told,) = set(wider)
    return told


@attack("2.2.1", "4.10", told="401 token_revoked")
async def a_stolen_token_after_its_owner_disconnected_the_client(scene: Scene) -> str:
    token = (await scene.client.connect(scene.victim, resource=API))["access_token"]
    assert await admitted(scene, token) == "200 admitted"
    grant = scene.house.claims(token, API).grant
    await scene.victim.post(f"/account/grants/{grant}/disconnect")
    return await admitted(scene, token)


@attack("4.3", told="401 not-signed-in")
async def a_token_in_the_query(scene: Scene) -> str:
    token = (await scene.client.connect(scene.victim, resource=API))["access_token"]
    http = scene.house.http()
    return said(await http.get("/api/auth/grants", params={"access_token": token}))


# -- signatures (RFC 8725) -----------------------------------------------------------------------------


def b64(value: bytes | dict[str, Any]) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(scene: Scene, **changes: object) -> dict[str, Any]:
    """What a token of the victim's for the APIs says."""
    now = int(time.time())
    claims = {"iss": ORIGIN, "sub": scene.victim_id, "aud": API, "iat": now, "exp": now + 600}
    return claims | {"grant": "forged", "client_id": "x", **changes}


async def public_key(scene: Scene) -> dict[str, str]:
    key: dict[str, str] = (await scene.house.http().get("/.well-known/jwks.json")).json()["keys"][0]
    return key


@attack("RFC 8725, 2.1", told="401 token_malformed")
async def a_token_without_a_signature(scene: Scene) -> str:
    kid = (await public_key(scene))["kid"]
    headers = [{"alg": alg, "typ": ACCESS_TYPE, "kid": kid} for alg in ("none", "None", "nOnE", "")]
    tokens = [f"{b64(header)}.{b64(claims_of(scene))}." for header in headers]
    (told,) = {await admitted(scene, token) for token in tokens}
    return told


@attack("RFC 8725, 2.1", told="401 token_malformed")
async def a_token_signed_with_our_public_key_as_a_shared_secret(scene: Scene) -> str:
    public = await public_key(scene)
    pem = ECKey.import_key({**public}).as_pem(private=False)
    signed = f"{b64({'alg': 'HS256', 'typ': ACCESS_TYPE, 'kid': public['kid']})}.{b64(claims_of(scene))}"
    told = set()
    for secret in (pem, pem.strip(), json.dumps(public).encode(), public["x"].encode()):
        mac = hmac.digest(secret, signed.encode(), "sha256")
        told.add(await admitted(scene, f"{signed}.{b64(mac)}"))
    (only,) = told
    return only


@attack("RFC 8725, 3.10", told="401 token_unknown_key")
async def a_token_that_names_a_key_of_the_attackers(scene: Scene) -> str:
    own = ECKey.generate_key("P-256")
    kids = ("mallorys", "../../../dev/null", "' OR 1=1 --", "https://evil.example/key")
    extra = {"jwk": own.as_dict(private=False), "jku": "https://evil.example/jwks.json"}
    told = set()
    for kid in kids:
        header = {"alg": "ES256", "typ": ACCESS_TYPE, "kid": kid, **extra}
        told.add(await admitted(scene, jwt.encode(header, claims_of(scene), own, algorithms=["ES256"])))
    (only,) = told
    return only


@attack("RFC 8725, 3.10", told="401 token_malformed")
async def a_token_that_names_our_key_and_is_signed_with_another(scene: Scene) -> str:
    own, kid = ECKey.generate_key("P-256"), (await public_key(scene))["kid"]
    header = {"alg": "ES256", "typ": ACCESS_TYPE, "kid": kid}
    return await admitted(scene, jwt.encode(header, claims_of(scene), own, algorithms=["ES256"]))


@attack("RFC 8725, 2.8", told="401 token_malformed")
async def the_consoles_cookie_shown_as_an_access_token(scene: Scene) -> str:
    cookie = scene.victim.http.cookies["lockgate"]
    verified = Verifier(scene.house.app.state.follower.tables, ORIGIN)
    assert verified.verify(cookie, CONSOLE_AUDIENCE, typ=CONSOLE_TYPE)
    return await admitted(scene, cookie, CONSOLE_AUDIENCE)


@attack("RFC 8725, 2.8", told="303 to /login, token_malformed")
async def an_access_token_planted_as_the_consoles_cookie(scene: Scene) -> str:
    token = (await scene.client.connect(scene.victim, resource=API))["access_token"]
    thief = scene.house.browser()
    thief.http.cookies.set("lockgate", token)
    told = said(await thief.get("/account"))
    reason = (await admitted(scene, token, API, CONSOLE_TYPE)).partition(" ")[2]
    return f"{told}, {reason}"


# -- refresh tokens ------------------------------------------------------------------------------------


@attack("2.2.2", "4.14", told="400 invalid_grant", recorded="refresh_reused: refresh_reused")
async def a_stolen_refresh_token_replayed_after_its_owner_used_it(scene: Scene) -> str:
    first = await scene.client.connect(scene.victim, resource=API)
    second = (await scene.client.refresh(first["refresh_token"])).json()
    scene.house.age("refresh_tokens", "replaced_at", 31)
    told = said(await scene.client.refresh(first["refresh_token"]))
    assert await admitted(scene, second["access_token"]) == "401 token_revoked", "the whole family ends"
    return told


@attack("2.2.2", "4.14", told="400 invalid_grant", recorded="refreshed: wrong_client")
async def a_refresh_token_used_by_another_client(scene: Scene) -> str:
    tokens = await scene.client.connect(scene.victim)
    told = said(await (await scene.house.client()).refresh(tokens["refresh_token"]))
    assert (await scene.client.refresh(tokens["refresh_token"])).status_code == 200
    return told


@attack("4.14", told="400 invalid_grant", recorded="refreshed: grant_ended")
async def a_refresh_token_used_after_the_grant_has_ended(scene: Scene) -> str:
    tokens = await scene.client.connect(scene.victim)
    await scene.victim.post("/account/sign-out-everywhere")
    return said(await scene.client.refresh(tokens["refresh_token"]))


@attack("4.14", told="400 invalid_grant", recorded="refreshed: token_expired")
async def a_refresh_token_that_lay_unused_too_long(scene: Scene) -> str:
    tokens = await scene.client.connect(scene.victim)
    scene.house.age("refresh_tokens", "expires_at", 180 * 24 * 3600 + 1)
    return said(await scene.client.refresh(tokens["refresh_token"]))


@attack("2.3", "4.14", told="200 mcp")
async def a_refresh_for_more_scope_than_was_consented_to(scene: Scene) -> str:
    tokens = await scene.client.connect(scene.victim, scope="mcp")
    answer = await scene.client.refresh(tokens["refresh_token"], scope="mcp admin offline_access")
    return f"{answer.status_code} {answer.json()['scope']}"


@attack("RFC 7009, 5", told="400 invalid_grant")
async def a_client_that_revokes_the_tokens_of_another(scene: Scene) -> str:
    tokens = await scene.client.connect(scene.victim)
    evil = await scene.house.client()
    form = {"token": tokens["refresh_token"], "client_id": evil.id}
    told = said(await evil.http.post("/oauth/revoke", data=form))
    assert (await scene.client.refresh(tokens["refresh_token"])).status_code == 200
    return told


@attack("RFC 7662, 4", told="401 invalid_client")
async def asking_what_a_stolen_token_is_worth(scene: Scene) -> str:
    token = (await scene.client.connect(scene.victim))["access_token"]
    evil = await scene.house.client(redirect_uris=[REDIRECT])
    return said(await evil.http.post("/oauth/introspect", data={"token": token, "client_id": evil.id}))


@attack("2.6", told=f"nothing of {EMAIL}")
async def reading_an_access_token_for_personal_data(scene: Scene) -> str:
    token = (await scene.client.connect(scene.victim))["access_token"]
    payload = base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
    return f"{'something' if EMAIL in payload or 'Admin' in payload else 'nothing'} of {EMAIL}"
