"""A server that people connect to with accounts of their own, and how they do so in their browsers."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlsplit

from mcp import MCPError
from mcp_types import CallToolResult, TextContent

from tests.e2e.by_hand import unwrapped
from tests.e2e.gates import Gate
from tests.e2e.people import Person
from tests.providers.running import OAuthProvider

# A provider of the tests is on this machine, where a real one must not be.
PRIVATE = {"LOCKGATE_CREDENTIALS_PRIVATE_PROVIDERS": "true"}


@dataclass
class Guarded:
    """The upstream that trusts `provider`, registered under `slug`."""

    gate: Gate
    provider: OAuthProvider
    slug: str = "guarded"

    @property
    def url(self) -> str:
        return self.gate.server(self.slug)

    @property
    def page(self) -> str:
        return f"/credentials/servers/{self.slug}"

    async def register(self) -> None:
        url = self.provider.server_url
        server = {"name": "Guarded", "url": url, "auth": "oauth", "default_access": "allow"}
        await self.gate.admin.api("PUT", f"/api/policy/servers/{self.slug}", server)

    async def connect(self, person: Person, button: str = "Connect", page: str = "") -> tuple[str, str]:
        """Press a button, allow it at the provider, come back. Returns where the browser was sent back to,
        and the page at which it ended up."""
        browser = person.browser
        shown = await browser.page(page or self.page)
        assert shown.status_code == 200, shown.text
        leaving = await browser.submit(*Forms(shown.text).named(button))
        assert leaving.status_code == 200, leaving.text
        back = await self.provider.allow(leaving.headers["refresh"].removeprefix("0; url="))
        assert back.startswith(browser.origin)
        come = await browser.page(back)
        assert come.status_code == 303, come.text
        return back, (await browser.page(come.headers["location"])).text

    async def disconnect(self, person: Person) -> None:
        page = await person.browser.page(self.page)
        done = await person.browser.submit(*Forms(page.text).named("Disconnect"))
        assert done.status_code == 303, done.text

    async def echo(self, person: Person, message: str, mode: str = "auto") -> str:
        """What the upstream answers, by the official client. Raises `MCPError`."""
        with unwrapped():
            async with person.client(self.url, mode) as client:
                return text(await client.call_tool("echo", {"message": message}))

    def link_in(self, error: MCPError) -> str:
        """The page that an error tells its reader to open, as a path."""
        (url,) = re.findall(rf"{re.escape(self.gate.url)}/[^\s\"'<>]*[^\s\"'<>.,;:)]", str(error))
        parts = urlsplit(url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Forms(HTMLParser):
    """The forms of a page: their actions, their fields as they would be sent, what is on their buttons."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], str]] = []
        self._in_button = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.found.append((given["action"], {}, ""))
        elif tag == "input" and self.found:
            self.found[-1][1][given["name"]] = given.get("value", "")
        self._in_button = tag == "button"

    def handle_endtag(self, tag: str) -> None:
        self._in_button = False

    def handle_data(self, data: str) -> None:
        if self._in_button and self.found:
            action, fields, button = self.found[-1]
            self.found[-1] = action, fields, button + data

    def named(self, button: str) -> tuple[str, dict[str, str]]:
        (form,) = [(action, fields) for action, fields, name in self.found if name == button]
        return form


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent) and not result.is_error, result
    return content.text
