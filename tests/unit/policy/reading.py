"""Pages, read as a person reads them."""

import re
from html import unescape

import httpx2

from tests.unit.policy.conftest import Policy


async def follow(policy: Policy, answer: httpx2.Response) -> str:
    """The text of the page to which a form leads."""
    assert answer.status_code == 303, answer.text
    page = await policy.browser.get(answer.headers["location"])
    assert page.status_code == 200, page.text
    return text(page)


def text(page: httpx2.Response) -> str:
    """What it says, without the mark-up."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", page.text, flags=re.S)))


def notice(page: httpx2.Response) -> str:
    found = re.search(r'<p class="notice[^>]*>(.*?)</p>', page.text, re.S)
    return unescape(found[1]) if found else ""


def fields(page: str, action: str) -> dict[str, str]:
    """The hidden fields of the form that goes to `action`."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.S)
    assert found, f"there is no form that goes to {action}"
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', found[1])
    return {name: unescape(value) for name, value in hidden}
