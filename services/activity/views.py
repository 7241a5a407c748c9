"""How values look on the pages. Pure functions; the templates use them as filters."""

import re
from datetime import datetime
from typing import Literal

from libs.common.clock import now

NAME_SHOWN = 200  # characters of a name or another short value
SHOWN = 4_000  # characters of a payload in the list; the call's own page shows all of it

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_STEPS = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (7 * 86_400, 86_400, "d"))

Tone = Literal["", "good", "warn", "bad"]
_TONES: dict[str, Tone] = {
    "ok": "good",
    "error": "bad",
    "failed": "bad",
    "denied": "warn",
    "unknown": "warn",
}


def tone(status: str) -> Tone:
    """The colour of a status tag."""
    return _TONES.get(status, "")


def verdict(status: str, revision: int) -> Literal["", "allowed", "refused"]:
    """What was decided about a call that ended in `status`; empty if nothing was (revision 0)."""
    if status == "denied":
        return "refused"
    return "allowed" if revision else ""


def ago(time: str, today: datetime | None = None) -> str:
    """How long ago `time` (ISO 8601) was; a date when that is more than a week."""
    moment = datetime.fromisoformat(time)
    seconds = ((today or now()) - moment).total_seconds()
    if seconds < 1:
        return "just now"
    for below, unit, name in _STEPS:
        if seconds < below:
            return f"{int(seconds // unit)} {name} ago"
    return moment.strftime("%Y-%m-%d")


def exact(time: str) -> str:
    """`time` (ISO 8601, UTC) for people, to the millisecond."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def latency(microseconds: int) -> str:
    """A duration with two or three significant digits."""
    if microseconds <= 0:
        return "–"
    milliseconds = microseconds / 1000
    if milliseconds < 10:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.2f} s"


def size(octets: int) -> str:
    """A number of bytes for people."""
    if octets < 1024:
        return f"{octets} B"
    if octets < 1024 * 1024:
        return f"{octets / 1024:.1f} KiB"
    return f"{octets / 1024 / 1024:.1f} MiB"


def cut(text: str, length: int = NAME_SHOWN) -> str:
    """`text`, or its beginning with an ellipsis: a page stays a page whatever a client puts into a name."""
    return text if len(text) <= length else text[: length - 1] + "…"


def indented(text: str) -> str:
    """JSON `text` on many lines, every token as it was written; also when its end is cut off.

    Parsing and writing it anew would change numbers that Python cannot hold.
    """
    if not text.startswith(("{", "[")):
        return text
    out: list[str] = []
    depth = 0
    previous = ""
    for part in _TOKEN.findall(text):
        if part in ("}", "]"):
            depth = max(0, depth - 1)
            if previous not in ("{", "["):
                out.append("\n" + "  " * depth)
        elif previous in ("{", "[", ","):
            out.append("\n" + "  " * depth)
        out.append(": " if part == ":" else part)
        if part in ("{", "["):
            depth += 1
        previous = part
    return "".join(out)


FILTERS = {
    "tone": tone,
    "verdict": verdict,
    "ago": ago,
    "exact": exact,
    "latency": latency,
    "size": size,
    "cut": cut,
    "indented": indented,
}
