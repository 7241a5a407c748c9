"""Each attack of RFC 9700 that applies, and others: refused for its reason and, about a person, recorded.

The table is in tests/unit/auth/attacks. The other tests of this directory go into the details of each.
"""

from collections.abc import AsyncIterator

import pytest

from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.unit.auth.attacks import browsers, codes, people, tokens
from tests.unit.auth.attacks.table import ATTACKS, Attack, Scene
from tests.unit.auth.house import House

MODULES = (browsers, codes, people, tokens)  # imported for their rows

# RFC 9700: the sections of "Best Practices" and of "Attacks and Mitigations", by its table of contents.
SECTIONS = {
    "2.1": "Protecting Redirect-Based Flows",
    "2.1.1": "Authorization Code Grant",
    "2.1.2": "Implicit Grant",
    "2.2.1": "Access Tokens",
    "2.2.2": "Refresh Tokens",
    "2.3": "Access Token Privilege Restriction",
    "2.4": "Resource Owner Password Credentials Grant",
    "2.5": "Client Authentication",
    "2.6": "Other Recommendations",
    "4.1": "Insufficient Redirection URI Validation",
    "4.2": "Credential Leakage via Referer Headers",
    "4.3": "Credential Leakage via Browser History",
    "4.4": "Mix-Up Attacks",
    "4.5": "Authorization Code Injection",
    "4.6": "Access Token Injection",
    "4.7": "Cross-Site Request Forgery",
    "4.8": "PKCE Downgrade Attack",
    "4.9": "Access Token Leakage at the Resource Server",
    "4.10": "Misuse of Stolen Access Tokens",
    "4.11": "Open Redirection",
    "4.12": "307 Redirect",
    "4.13": "TLS Terminating Reverse Proxies",
    "4.14": "Refresh Token Protection",
    "4.15": "Client Impersonating Resource Owner",
    "4.16": "Clickjacking",
    "4.17": "Attacks on In-Browser Communication Flows",
}

# Parts of them that no case can be about.
NOT_HERE = {
    "4.10.1": "MCP clients use bearer tokens: none sends DPoP proofs or client certificates.",
    "4.11.1": "Clients that redirect are other people's programs.",
    "4.17.1": "No page of ours speaks to another window, as the case of 4.17 checks.",
}


@pytest.fixture
async def scene(request: pytest.FixtureRequest, settings: AuthSettings) -> AsyncIterator[Scene]:
    attack: Attack = request.getfixturevalue("attack")
    if attack.https:
        settings = settings.model_copy(update={"public_url": "https://lockgate.example"})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        house = House(app, settings)
        yield Scene(house, await house.signed_in(), await house.client())
        await house.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_for_its_reason_and_recorded(attack: Attack, scene: Scene) -> None:
    before = len(scene.house.events())
    assert await attack.attempt(scene) == attack.told
    refusals = [event for event in scene.house.events()[before:] if event.outcome == "refused"]
    recorded = dict.fromkeys(f"{event.event}: {event.reason}" for event in refusals)
    assert tuple(recorded) == attack.recorded
    assert all(event.address for event in refusals)


def test_every_section_has_a_case() -> None:
    covered = {section for attack in ATTACKS for section in attack.sections if section[0].isdigit()}
    assert covered == set(SECTIONS)
    assert all(section.rpartition(".")[0] in SECTIONS for section in NOT_HERE)


def test_no_two_cases_are_the_same() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
