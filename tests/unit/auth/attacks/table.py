"""What an attack is. tests/unit/auth/test_attacks.py carries them out.

It is a function that sets the scene, shows that the honest way works where that could be in doubt, tries, and
returns what it was told. Sections are those of RFC 9700 unless another source is named.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from tests.unit.auth.house import EMAIL, Browser, Client, House, query

MALLORY, MALLORYS_PASSWORD = "mallory@example.com", "a password of mallory"


@dataclass
class Scene:
    """A running service, its administrator signed in as the victim, an honest client."""

    house: House
    victim: Browser
    client: Client

    async def mallory(self) -> Browser:
        """The attacker's browser, signed in to an account of their own."""
        await self.house.add_user(MALLORY, password=MALLORYS_PASSWORD)
        return await self.house.signed_in(MALLORY, MALLORYS_PASSWORD)

    @property
    def victim_id(self) -> str:
        found = self.house.parts.store.users.by_email(EMAIL)
        assert found
        return found[0].id


Attempt = Callable[[Scene], Awaitable[str]]


@dataclass(frozen=True)
class Attack:
    """`told`: what the attacker gets to know. `recorded`: the refusals in `auth_events`, as `event: reason`,
    each once; empty where nobody with an account is concerned. `https`: on a public URL with TLS."""

    name: str
    sections: tuple[str, ...]
    told: str
    recorded: tuple[str, ...]
    attempt: Attempt
    https: bool = False


ATTACKS: list[Attack] = []


def attack(
    *sections: str, told: str, recorded: str | tuple[str, ...] = (), https: bool = False
) -> Callable[[Attempt], Attempt]:
    """Put a function into the table."""

    def add(attempt: Attempt) -> Attempt:
        events = (recorded,) if isinstance(recorded, str) else recorded
        name = getattr(attempt, "__name__", "").replace("_", " ")
        ATTACKS.append(Attack(name, sections, told, events, attempt, https))
        return attempt

    return add


def said(answer: httpx2.Response) -> str:
    """What an answer tells: its status, and an error, a place to go to, or what a page says."""
    if "location" in answer.headers:
        found = query(answer)
        return (
            f"{answer.status_code} {found.get('error') or 'to ' + urlsplit(answer.headers['location']).path}"
        )
    if answer.headers.get("content-type", "").startswith(("application/json", "application/problem+json")):
        body = answer.json()
        return f"{answer.status_code} {body.get('error') or body.get('type', '').rpartition(':')[2]}"
    return f"{answer.status_code} {_message(answer.text)}"


def _message(page: str) -> str:
    """The notice of a page, or what an error page says, or else its heading."""
    for pattern in (r'role="alert">(.*?)</p>', r"</h1>\s*<p>(.*?)</p>", r"<h1>(.*?)</h1>"):
        if found := re.search(pattern, page, re.S):
            return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())
    return ""
