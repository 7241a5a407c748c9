"""Tools and a prompt that need further rounds: they answer with what they want to know, and are called again
with the answers (2026-07-28, basic/patterns, "Multi round-trip requests")."""

from typing import Any

import msgspec
from mcp.server.mcpserver import Context
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)


def form(message: str, field: str, type: str = "string") -> ElicitRequest:
    """Ask the person for one value."""
    schema = {"type": "object", "properties": {field: {"type": type}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str) -> CreateMessageRequest:
    """Ask the client's model."""
    question = SamplingMessage(role="user", content=TextContent(text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[question], max_tokens=100))


def answer(ctx: Context, name: str) -> Any:
    """What the client answered to the request `name`; None if it did not."""
    return (ctx.input_responses or {}).get(name)


def filled_in(ctx: Context, name: str, field: str) -> str | None:
    """The value that the person gave; None without one."""
    given = answer(ctx, name)
    if not isinstance(given, ElicitResult) or not given.content:
        return None
    value = given.content.get(field)
    return None if value is None else str(value)


async def test_input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Asks for a name."""
    if name := filled_in(ctx, "user_name", "name"):
        return f"Hello, {name}!"
    return InputRequiredResult(input_requests={"user_name": form("What is your name?", "name")})


async def test_input_required_result_sampling(ctx: Context) -> str | InputRequiredResult:
    """Asks the client's model."""
    given = answer(ctx, "capital_question")
    if isinstance(given, CreateMessageResult) and isinstance(given.content, TextContent):
        return f"The model says: {given.content.text}"
    question = sampling("What is the capital of France?")
    return InputRequiredResult(input_requests={"capital_question": question})


async def test_input_required_result_list_roots(ctx: Context) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    given = answer(ctx, "client_roots")
    if isinstance(given, ListRootsResult):
        return "Roots: " + ", ".join(str(root.uri) for root in given.roots)
    return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})


async def test_input_required_result_request_state(ctx: Context) -> str | InputRequiredResult:
    """Asks for a confirmation, and wants its state back with it."""
    if answer(ctx, "confirm") and ctx.request_state == "asked":
        return "state-ok"
    return InputRequiredResult(
        input_requests={"confirm": form("Please confirm", "ok", "boolean")}, request_state="asked"
    )


async def test_input_required_result_multiple_inputs(ctx: Context) -> str | InputRequiredResult:
    """Asks the person, the model and for the roots at once."""
    wanted: dict[str, InputRequest] = {
        "user_name": form("What is your name?", "name"),
        "greeting": sampling("Write a greeting"),
        "client_roots": ListRootsRequest(),
    }
    if all(answer(ctx, name) for name in wanted):
        return "All inputs received"
    return InputRequiredResult(input_requests=wanted, request_state="asked for three")


class Round(msgspec.Struct):
    """How far a call of several rounds has come."""

    number: int = 0
    name: str = ""


async def test_input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
    """Asks for a name, then for a colour."""
    reached = msgspec.json.decode(ctx.request_state, type=Round) if ctx.request_state else Round()
    name, colour = filled_in(ctx, "step1", "name"), filled_in(ctx, "step2", "color")
    if reached.number == 2 and colour:
        return f"{reached.name} likes {colour}"
    if reached.number == 1 and name:
        return asked(Round(2, name), "step2", form("Step 2: What is your favorite color?", "color"))
    return asked(Round(1), "step1", form("Step 1: What is your name?", "name"))


def asked(reached: Round, name: str, question: InputRequest) -> InputRequiredResult:
    state = msgspec.json.encode(reached).decode()
    return InputRequiredResult(input_requests={name: question}, request_state=state)


async def test_input_required_result_tampered_state(ctx: Context) -> str | InputRequiredResult:
    """Asks for a confirmation. The SDK seals the state, and refuses one that was changed."""
    if ctx.request_state:
        return "state-ok"
    return InputRequiredResult(
        input_requests={"confirm": form("Please confirm", "ok", "boolean")}, request_state="sealed"
    )


async def test_input_required_result_capabilities(ctx: Context) -> InputRequiredResult:
    """Asks only for what the client can do."""
    able = ctx.client_capabilities
    wanted: dict[str, InputRequest] = {}
    if able and able.elicitation is not None:
        wanted["user_name"] = form("What is your name?", "name")
    if able and able.sampling is not None:
        wanted["greeting"] = sampling("Write a greeting")
    return InputRequiredResult(input_requests=wanted, request_state="by capability")


async def test_streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Reports progress, then asks: in its result, not by a request on the stream."""
    await ctx.report_progress(1, 2)
    return await test_input_required_result_elicitation(ctx)


TOOLS = (
    test_input_required_result_elicitation,
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_request_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_tampered_state,
    test_input_required_result_capabilities,
    test_streaming_elicitation,
)


async def test_input_required_result_prompt(ctx: Context) -> str | InputRequiredResult:
    """A prompt that asks for its context."""
    if context := filled_in(ctx, "user_context", "context"):
        return f"Use this context: {context}"
    question = form("What context should the prompt use?", "context")
    return InputRequiredResult(input_requests={"user_context": question})


PROMPTS = (test_input_required_result_prompt,)
