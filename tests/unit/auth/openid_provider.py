"""A real OpenID provider in a process of its own, and people who sign in there."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
from pydantic import SecretStr

from tests.conftest import free_port
from tests.npm import Packages
from tests.unit.auth.house import ORIGIN

CLIENT_ID, CLIENT_SECRET = "lockgate", "the client's secret"
CALLBACK = f"{ORIGIN}/login/sso/callback"

ADA = {"email": "ada@example.com", "email_verified": True, "name": "Ada Lovelace"}


@dataclass
class OpenIdProvider:
    """The certified `oidc-provider`. Who types the name of an account at its login page is that account."""

    packages: Packages
    directory: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **options: Any) -> None:
        """With new keys each time."""
        accounts = self.directory / "accounts.json"
        if not accounts.exists():
            self.knows(ada=ADA)
        given = {"port": self.port, "redirectUri": CALLBACK, "accounts": str(accounts), **options}
        command = self.packages.script("oidc-provider.mjs", json.dumps(given))
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.packages.environment(),
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise AssertionError(f"the provider ended with status {self.process.wait()}")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None

    def restart(self, **options: Any) -> None:
        self.stop()
        self.start(**options)

    def knows(self, **accounts: dict[str, Any]) -> None:
        """The accounts and their claims, from now on."""
        (self.directory / "accounts.json").write_text(json.dumps(accounts))

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What Lockgate is told of it."""
        return {
            "auth_oidc_issuer": self.issuer,
            "auth_oidc_client_id": CLIENT_ID,
            "auth_oidc_client_secret": SecretStr(CLIENT_SECRET),
            "auth_oidc_allowed_domains": "example.com",
            "auth_oidc_join": "member",
            **changes,
        }

    async def sign_in(self, url: str, account: str, *, give_up: bool = False) -> str:
        """What somebody does there who was sent to `url`: where the browser is sent back to."""
        async with httpx2.AsyncClient() as http:
            answer = await http.get(url)
            for _ in range(12):
                while answer.status_code in {302, 303}:
                    url = urljoin(str(answer.url), answer.headers["location"])
                    if url.startswith(CALLBACK):
                        return url
                    answer = await http.get(url)
                assert answer.status_code == 200, answer.text
                answer = await self._submit(http, answer, account, give_up=give_up)
        raise AssertionError("the provider does not send the browser back")

    async def _submit(
        self, http: httpx2.AsyncClient, page: httpx2.Response, account: str, *, give_up: bool
    ) -> httpx2.Response:
        if give_up:
            abort = re.search(r'href="([^"]+/abort)"', page.text)
            assert abort
            return await http.get(urljoin(str(page.url), abort[1]))
        action = re.search(r'<form[^>]+action="([^"]+)"', page.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', page.text)
        assert action and prompt, page.text
        form = {"prompt": prompt[1], "login": account, "password": "anything"}
        return await http.post(urljoin(str(page.url), action[1]), data=form)
