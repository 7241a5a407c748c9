"""The tools. What a docstring and the annotations say is what the model on the other side reads."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from examples.demo import units


class Moment(BaseModel):
    """A moment as a clock and a calendar in `zone` show it."""

    zone: str
    time: str = Field(description="ISO 8601 with the offset from UTC")
    weekday: str


class TextSize(BaseModel):
    """How long a text is."""

    words: int
    characters: int
    lines: int


class Quantity(BaseModel):
    """A number with its unit."""

    value: float
    unit: str


def now(zone: Annotated[str, Field(description="IANA time zone, such as Europe/Berlin")] = "UTC") -> Moment:
    """The current date and time in a time zone."""
    try:
        moment = datetime.now(ZoneInfo(zone))
    except (OSError, ValueError, KeyError):  # what ZoneInfo raises for a name that is none
        raise ToolError(f"unknown time zone {zone!r}; try one like America/New_York") from None
    return Moment(zone=zone, time=moment.isoformat(timespec="seconds"), weekday=f"{moment:%A}")


def word_count(text: Annotated[str, Field(description="The text to measure")]) -> TextSize:
    """Count the words, characters and lines of a text."""
    return TextSize(words=len(text.split()), characters=len(text), lines=len(text.splitlines()))


def convert(
    value: Annotated[float, Field(description="The number to convert")],
    source: Annotated[str, Field(description=f"Its unit: {', '.join(units.UNITS)}")],
    target: Annotated[str, Field(description="The unit wanted, of the same dimension")],
) -> Quantity:
    """Convert a length, mass, volume or temperature to another unit."""
    try:
        return Quantity(value=round(units.convert(value, source, target), 6), unit=target)
    except ValueError as error:
        raise ToolError(str(error)) from error


async def slow(
    context: Context[Any, Any],
    seconds: Annotated[float, Field(ge=0, le=60, description="How long to take")] = 5.0,
) -> str:
    """Take a few seconds and report progress meanwhile, as a long job would."""
    steps = max(1, round(seconds * 2))
    for step in range(steps):
        await context.report_progress(step, steps, f"step {step + 1} of {steps}")
        await asyncio.sleep(seconds / steps)
    await context.report_progress(steps, steps, "done")
    return f"Done after {seconds:g} s."


def fail(reason: Annotated[str, Field(description="What the error says")] = "this tool always fails") -> str:
    """Always fail, to see what an error of a tool looks like."""
    raise ToolError(reason)


TOOLS = (now, word_count, convert, slow, fail)
