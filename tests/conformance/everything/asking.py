"""Tools that ask the client back while they run, by requests of the server (revisions up to 2025-11-25)."""

from typing import Any

from mcp.server.mcpserver import Context
from mcp_types import SamplingMessage, TextContent
from pydantic import BaseModel, Field


async def test_sampling(prompt: str, ctx: Context) -> str:
    """Has the client's model complete `prompt`."""
    question = SamplingMessage(role="user", content=TextContent(text=prompt))
    # On the stream of this call: another one may not be open.
    answer = await ctx.session.create_message([question], max_tokens=100, related_request_id=ctx.request_id)
    assert isinstance(answer.content, TextContent)
    return f"LLM response: {answer.content.text}"


async def asked(ctx: Context, message: str, form: type[BaseModel]) -> str:
    """What the person did with a form: the action, and the content as JSON."""
    answer = await ctx.elicit(message, form)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"action={answer.action}, content={content}"


class Reply(BaseModel):
    response: str = Field(description="User's response")


async def test_elicitation(message: str, ctx: Context) -> str:
    """Asks the person for a text."""
    return f"User response: {await asked(ctx, message, Reply)}"


def one_of(*values: str) -> Any:
    """A JSON Schema for one of `values`."""
    return {"enum": list(values)}


class Defaults(BaseModel):
    """A default of each primitive type (SEP-1034)."""

    name: str = Field("John Doe", description="User name")
    age: int = Field(30, description="User age")
    score: float = Field(95.5, description="User score")
    status: str = Field(
        "active", description="User status", json_schema_extra=one_of("active", "inactive", "pending")
    )
    verified: bool = Field(True, description="Verification status")


async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Asks with a form that has defaults."""
    return f"Elicitation completed: {await asked(ctx, 'Please review the profile', Defaults)}"


def titled(**titles: str) -> list[dict[str, str]]:
    """JSON Schemas that each stand for one value and its title."""
    return [{"const": value, "title": title} for value, title in titles.items()]


_LEGACY: Any = one_of("opt1", "opt2", "opt3") | {"enumNames": ["Option One", "Option Two", "Option Three"]}
_SINGLE: Any = {"oneOf": titled(value1="First Option", value2="Second Option", value3="Third Option")}
_MULTI: Any = {
    "items": {"anyOf": titled(value1="First Choice", value2="Second Choice", value3="Third Choice")}
}
_UNTITLED_MULTI: Any = {"items": {"type": "string"} | one_of("option1", "option2", "option3")}


class Choices(BaseModel):
    """Each way to offer a choice (SEP-1330)."""

    untitledSingle: str = Field(json_schema_extra=one_of("option1", "option2", "option3"))
    titledSingle: str = Field(json_schema_extra=_SINGLE)
    legacyEnum: str = Field(json_schema_extra=_LEGACY)
    untitledMulti: list[str] = Field(json_schema_extra=_UNTITLED_MULTI)
    titledMulti: list[str] = Field(json_schema_extra=_MULTI)


async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Asks with a form of choices."""
    return f"Elicitation completed: {await asked(ctx, 'Please choose', Choices)}"


TOOLS = (test_sampling, test_elicitation, test_elicitation_sep1034_defaults, test_elicitation_sep1330_enums)
