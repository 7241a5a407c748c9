"""Attacks on redirects, authorization codes and PKCE, and by clients on other clients."""

import secrets

from tests.unit.auth.attacks.table import Scene, attack, said
from tests.unit.auth.house import ORIGIN, REDIRECT, Client, query

SITE = "https://evil.example/cb"
FOREIGN = "400 The application sent a request that is not right: "
FOREIGN += "The redirect URI is not one that this client registered."


async def asked_to_redirect(scene: Scene, uri: str) -> str:
    return said(await scene.victim.get(scene.client.authorize_url(redirect_uri=uri)))


@attack("2.1", "4.1", told=FOREIGN, recorded="consented: foreign_redirect_uri")
async def a_redirect_to_the_attackers_site(scene: Scene) -> str:
    return await asked_to_redirect(scene, SITE)


@attack("4.1", told=FOREIGN, recorded="consented: foreign_redirect_uri")
async def a_redirect_uri_that_only_begins_like_the_registered_one(scene: Scene) -> str:
    uris = (f"{REDIRECT}.evil.example", f"{REDIRECT}/../x", f"{REDIRECT}?to=evil", f"{REDIRECT}#x")
    (told,) = {await asked_to_redirect(scene, uri) for uri in uris}
    return told


@attack("4.1", told=FOREIGN, recorded="consented: foreign_redirect_uri")
async def a_redirect_uri_whose_host_only_looks_like_this_computer(scene: Scene) -> str:
    hosts = ("127.0.0.1@evil.example", "127.0.0.1.evil.example", "evil.example\\@127.0.0.1", "2130706433")
    (told,) = {await asked_to_redirect(scene, f"http://{host}/callback") for host in hosts}
    return told


@attack("4.1", "4.11", told="400 invalid_redirect_uri")
async def registering_a_redirect_that_a_browser_runs(scene: Scene) -> str:
    uris = ("javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:x")
    http = scene.house.http()
    answers = [await http.post("/oauth/register", json={"redirect_uris": [uri]}) for uri in uris]
    (told,) = {said(answer) for answer in answers}
    return told


@attack("4.1", "4.5", told="400 invalid_grant", recorded="granted: wrong_redirect_uri")
async def a_code_redeemed_with_another_redirect_uri(scene: Scene) -> str:
    uri = "http://127.0.0.1:51234/callback"
    code = await scene.client.consent(scene.victim, redirect_uri=uri)
    return said(await scene.client.exchange(code, redirect_uri=REDIRECT))


@attack("4.11", told="303 to /login")
async def the_server_as_an_open_redirector_for_somebody_not_signed_in(scene: Scene) -> str:
    evil = await scene.house.client(redirect_uris=[SITE])
    bad = ({"response_type": "token"}, {"scope": "x"}, {"code_challenge": None}, {"resource": "x://y"})
    links = [evil.authorize_url(redirect_uri=SITE, **changes) for changes in bad]
    (told,) = {said(await scene.house.browser().get(link)) for link in links}
    return told


@attack("4.11", told="400 Nobody is signed in, and the application is not known.")
async def the_server_as_an_open_redirector_that_may_ask_nothing(scene: Scene) -> str:
    evil = await scene.house.client(redirect_uris=[SITE])
    return said(await scene.house.browser().get(evil.authorize_url(redirect_uri=SITE, prompt="none")))


@attack("2.1.1", "4.5", told="400 invalid_grant", recorded="granted: wrong_verifier")
async def a_stolen_code_injected_into_the_attackers_own_session(scene: Scene) -> str:
    stolen = await scene.client.consent(scene.victim)
    mallorys = Client(scene.client.http, scene.client.id)  # the same client, begun by somebody else
    return said(await mallorys.exchange(stolen))


@attack("4.5", told="400 invalid_grant", recorded="granted: wrong_client")
async def a_stolen_code_redeemed_by_another_client(scene: Scene) -> str:
    stolen = await scene.client.consent(scene.victim)
    evil = await scene.house.client()
    told = said(await evil.exchange(stolen, code_verifier=scene.client.verifier))
    assert (await scene.client.exchange(stolen)).status_code == 200, "its own client still can"
    return told


@attack(
    "4.2",
    "4.3",
    "4.5",
    told="400 invalid_grant",
    recorded=("code_reused: code_reused", "refreshed: grant_ended"),
)
async def a_code_from_the_browsers_history_used_again(scene: Scene) -> str:
    code = await scene.client.consent(scene.victim)
    tokens = (await scene.client.exchange(code)).json()
    told = said(await scene.client.exchange(code))
    after = await scene.client.refresh(tokens["refresh_token"])
    assert after.json()["error"] == "invalid_grant", "what it gave the first time has ended"
    return told


@attack("4.3", "4.5", told="400 invalid_grant", recorded="granted: code_expired")
async def a_code_used_when_its_minute_is_over(scene: Scene) -> str:
    code = await scene.client.consent(scene.victim)
    scene.house.age("codes", "expires_at", 61)
    return said(await scene.client.exchange(code))


@attack("4.5", told="400 invalid_grant")
async def guessing_codes(scene: Scene) -> str:
    answers = [await scene.client.exchange(secrets.token_urlsafe(32)) for _ in range(20)]
    (told,) = {said(answer) for answer in answers}
    return told


@attack("2.1.1", "4.8", told="303 invalid_request", recorded="consented: pkce_missing")
async def a_request_stripped_of_its_code_challenge(scene: Scene) -> str:
    url = scene.client.authorize_url(code_challenge=None, code_challenge_method=None)
    return said(await scene.victim.get(url))


@attack("4.8", told="303 invalid_request", recorded="consented: pkce_not_s256")
async def a_challenge_that_is_downgraded_to_plain(scene: Scene) -> str:
    methods = ("plain", "s256", "none", None)
    urls = [scene.client.authorize_url(code_challenge_method=method) for method in methods]
    (told,) = {said(await scene.victim.get(url)) for url in urls}
    return told


@attack("4.8", told="400 invalid_request", recorded="granted: wrong_verifier")
async def a_code_redeemed_without_a_verifier(scene: Scene) -> str:
    code = await scene.client.consent(scene.victim)
    return said(await scene.client.exchange(code, code_verifier=None))


@attack("4.4", told=f"issuer {ORIGIN}", recorded="consented: denied_by_user")
async def mixing_up_this_server_with_the_attackers(scene: Scene) -> str:
    """Each answer, errors too, says who gives it (RFC 9207), so that a client can tell."""
    url, wrong = scene.client.authorize_url(), scene.client.authorize_url(response_type="token")
    answers = [
        await scene.victim.post(url, {"decision": "allow"}),
        await scene.victim.post(url, {"decision": "deny"}),
        await scene.victim.get(wrong),
    ]
    metadata = (await scene.house.http().get("/.well-known/oauth-authorization-server")).json()
    assert metadata["authorization_response_iss_parameter_supported"] is True
    (issuer,) = {query(answer)["iss"] for answer in answers} | {metadata["issuer"]}
    return f"issuer {issuer}"


@attack("2.1.2", "4.3", told="303 unsupported_response_type")
async def asking_for_a_token_in_the_url(scene: Scene) -> str:
    kinds = ("token", "id_token", "code token", "id_token token")
    urls = [scene.client.authorize_url(response_type=kind) for kind in kinds]
    (told,) = {said(await scene.victim.get(url)) for url in urls}
    return told


@attack("2.4", told="400 unsupported_grant_type")
async def asking_for_a_token_by_password_or_by_being_a_client(scene: Scene) -> str:
    form: dict[str, str | list[str] | None] = {"username": "admin@example.com", "password": "x"}
    kinds = ("password", "client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange")
    (told,) = {said(await scene.client.token(grant_type=kind, **form)) for kind in kinds}
    return told


@attack("2.5", told="401 invalid_client")
async def a_confidential_client_impersonated_without_its_secret(scene: Scene) -> str:
    client = await scene.house.client(token_endpoint_auth_method="client_secret_post")
    code = await client.consent(scene.victim)
    told = {said(await client.exchange(code, client_secret=secret)) for secret in (None, "guessed", "")}
    assert (await client.exchange(code, client_secret=client.secret)).status_code == 200
    (only,) = told
    return only


@attack("4.15", told="201 with an id of its own")
async def a_client_that_wants_a_persons_id_for_its_own(scene: Scene) -> str:
    """So that its tokens could pass for that person's."""
    asked = {"client_id": scene.victim_id, "redirect_uris": [REDIRECT], "client_name": "Mallory's"}
    answer = await scene.house.http().post("/oauth/register", json=asked)
    own = answer.json()["client_id"] != scene.victim_id
    return f"{answer.status_code} {'with an id of its own' if own else 'with the id of a person'}"


@attack("RFC 8252, 8.1", told="400 invalid_grant", recorded="granted: wrong_verifier")
async def a_local_program_that_listens_on_the_port_of_a_client(scene: Scene) -> str:
    """It gets the redirect, and with it a code for which it has no verifier."""
    answer = await scene.victim.post(scene.client.authorize_url(), {"decision": "allow"})
    caught = query(answer)["code"]
    program = Client(scene.house.http(), scene.client.id)
    return said(await program.exchange(caught))


@attack("CIMD", told="400 it is not on the open internet", recorded="consented: bad_client_document")
async def a_client_document_in_our_own_network(scene: Scene) -> str:
    """Server-side request forgery."""
    hosts = ("127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "0.0.0.0")
    told = set()
    for host in hosts:
        url = scene.client.authorize_url(client_id=f"https://{host}/client.json")
        answer = said(await scene.victim.get(url))
        told.add(f"{answer[:3]} {answer.partition(', but ')[2].partition('.')[0]}")
    (only,) = told
    return only
