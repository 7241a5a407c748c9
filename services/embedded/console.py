"""What `lockgate up` prints: a line for each step, and what a person needs to go on.

On a terminal with a little colour and a spinner; anywhere else plain lines, which scripts may read.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


class Console:
    """Standard output."""

    def __init__(self) -> None:
        self._rich = _terminal()

    def say(self, text: str = "", style: str = "") -> None:
        """One line, never wrapped or interpreted."""
        if self._rich:
            self._rich.print(text, style=style or None, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Show that `label` is being done, and then how long it took."""
        began = time.monotonic()
        with self._rich.status(label) if self._rich else contextlib.nullcontext():
            yield
        self.say(f"  {'✓' if self._rich else 'ok'} {label} ({time.monotonic() - began:.1f} s)", "green")

    def administrator(self, app: object) -> None:
        """The account that the first start of `app`, the auth service, made; nothing at later starts.

        A generated password is shown this once and stored nowhere in clear; a given one is not repeated.
        """
        first = getattr(getattr(app, "state", None), "first_administrator", None)
        if first is None:
            return
        self.say()
        if first.generated:
            self.say("First administrator (the password is shown only now):", "bold")
            self.say(f"  E-mail:   {first.email}")
            self.say(f"  Password: {first.password}")
        else:
            self.say(f"First administrator: {first.email}, with the password given.", "bold")

    def addresses(self, public_url: str, demo: bool) -> None:
        """Where to go now."""
        self.say()
        self.say(f"Console:      {public_url}/", "bold")
        if demo:
            url = f"{public_url}/mcp/demo"
            self.say(f"Demo server:  {url}", "bold")
            self.say()
            self.say("For Cursor's mcp.json (README.md has other clients); a browser will open to sign in:")
            self.say(json.dumps({"mcpServers": {"lockgate-demo": {"url": url}}}, indent=2))
        self.say()
        self.say("Ctrl-C stops everything.", "dim")


def _terminal() -> "RichConsole | None":
    if not sys.stdout.isatty():
        return None
    from rich.console import Console as RichConsole

    return RichConsole(highlight=False)
