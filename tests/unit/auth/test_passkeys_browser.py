"""Passkeys in a real browser with its virtual authenticator (WebAuthn Level 3, section 11), by the pages' own
script under their own content-security policy."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.asgi import serve
from tests.conftest import Nats, free_port
from tests.unit.auth.house import EMAIL, PASSWORD, House

if TYPE_CHECKING:
    from playwright.async_api import Page

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture
async def house(nats: Nats, tmp_path: Path) -> AsyncIterator[House]:
    """The service behind a real port of localhost."""
    port = free_port()
    settings = AuthSettings(
        public_url=f"http://localhost:{port}",
        data_dir=tmp_path / "data",
        nats_url=nats.url,
        auth_admin_email=EMAIL,
        auth_admin_password=SecretStr(PASSWORD),
    )
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await serve(app, port, stack)
        yield House(app, settings)


@pytest.fixture
async def page(house: House) -> AsyncIterator["Page"]:
    """A tab with an authenticator that recognizes its owner. The browser must not complain of our script."""
    async with playwright.async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Page = await browser.new_page(base_url=house.settings.public_url)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield page
        assert [said for said in complaints if "Content Security Policy" in said or "Error" in said] == []
        await browser.close()


async def sign_in(page: "Page") -> None:
    await page.goto("/login?next=/account/security")
    await page.fill("input[name=email]", EMAIL)
    await page.fill("input[name=password]", PASSWORD)
    await page.click("text='Sign in' >> nth=-1")


async def add(page: "Page", name: str) -> None:
    await page.fill("input[name=name]", name)
    await page.fill("form[action$='/passkeys'] input[name=proof]", PASSWORD)
    await page.click("text='Add a passkey'")
    await page.click("text='Create the passkey'")


async def test_a_passkey_is_added_and_then_signs_in_alone_and_after_a_password(
    house: House, page: "Page"
) -> None:
    await sign_in(page)
    await add(page, "This laptop")
    await page.wait_for_selector("#codes")
    await page.click("text='I have kept them: go on'")
    assert await page.inner_text("td strong") == "This laptop"

    await page.click("text='Sign out'")
    await page.goto("/login?next=/account/security")
    await page.click("text='Sign in with a passkey'")
    await page.click("text='Use a passkey'")
    await page.wait_for_url(f"{house.settings.public_url}/account/security")
    assert house.event("signed_in").detail == "passkey"

    await page.click("text='Sign out'")
    await sign_in(page)
    await page.wait_for_url("**/login/second-factor")
    await page.click("text='Use a passkey'")
    await page.wait_for_url(f"{house.settings.public_url}/account/security")
    assert house.event("signed_in").detail == "password and passkey"


async def test_the_same_device_is_not_added_twice_and_says_so(house: House, page: "Page") -> None:
    await sign_in(page)
    await add(page, "This laptop")
    await page.click("text='I have kept them: go on'")
    await add(page, "The same laptop")
    await page.wait_for_selector("text=has a passkey for your account already")


async def test_a_browser_without_a_passkey_says_so(house: House, page: "Page") -> None:
    await page.goto("/login/passkey")
    await page.click("text='Use a passkey'")
    await page.wait_for_selector("text=there is no passkey here")


async def test_without_javascript_the_page_says_what_is_missing(house: House, page: "Page") -> None:
    assert page.context.browser
    context = await page.context.browser.new_context(java_script_enabled=False)
    silent = await context.new_page()
    await silent.goto(f"{house.settings.public_url}/login/passkey")
    assert "need JavaScript" in await silent.inner_text("main")
    assert await silent.is_disabled("text='Use a passkey'")
