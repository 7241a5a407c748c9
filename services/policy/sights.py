"""What it means for a server that somebody saw what it lists (pure)."""

import json
from dataclasses import replace

from services.policy.domain import Server
from services.policy.features import Feature, Features, told
from services.policy.pins import Pin, Sight, seen


def after(
    server: Server, sight: Sight, features: Features | None, at: str
) -> tuple[Features, dict[str, Pin]]:
    """What `server` offers, and which pins are otherwise, after `sight` at the time `at`.

    `features` is all that it offers; none when only some of its tools were seen.
    """
    settings = server.definition
    changed = seen(server.pins, [tool.name for tool in server.features.tools], sight, settings, at)
    pins = {**server.pins, **changed}
    if features is None:
        return _joined(server.features, sight, changed), changed
    defined = {one.name for one in sight.definitions}
    trusting = sight.adopt or settings.new_tools == "allow"

    def belongs(tool: Feature) -> bool:
        """Otherwise no pin of it could be kept, or it waits for review without a definition to look at."""
        known = tool.name in pins or tool.name in server.tools
        return known or (trusting and tool.name not in defined)

    return replace(features, tools=tuple(filter(belongs, features.tools))), changed


def _joined(features: Features, sight: Sight, changed: dict[str, Pin]) -> Features:
    """`features` and the tools that were not among them."""
    known = {tool.name for tool in features.tools}
    texts = {one.name: one.text for one in sight.definitions}
    new = told("tools", ((name, _description(texts[name])) for name in changed if name not in known))
    return replace(features, tools=features.tools + new)


def _description(text: str) -> str:
    description = json.loads(text).get("description") if text else ""
    return description if isinstance(description, str) else ""
