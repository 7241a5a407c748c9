"""The demo server, as the official client sees it in either era."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from mcp import Client

from services.embedded import demo
from services.embedded.datadir import DataDirectory


@pytest.fixture
async def url(directory: DataDirectory) -> AsyncIterator[str]:
    server = await demo.server(directory)
    await server.child.start()
    yield server.url
    await server.child.stop()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_answer_in_both_eras(url: str, mode: str) -> None:
    async with Client(url, mode=mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools == ["now", "word_count", "convert", "slow", "fail"]
        counted = await client.call_tool("word_count", {"text": "one two\nthree"})
        assert counted.structured_content == {"words": 3, "characters": 13, "lines": 2}
        converted = await client.call_tool("convert", {"value": 20, "source": "C", "target": "f"})
        assert converted.structured_content == {"value": 68.0, "unit": "f"}


async def test_slow_reports_progress(url: str) -> None:
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with Client(url) as client:
        result = await client.call_tool("slow", {"seconds": 0.1}, progress_callback=on_progress)
    assert not result.is_error
    assert steps == [0.0, 1.0]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("fail", {"reason": "on purpose"}, "on purpose"),
        ("now", {"zone": "../etc/passwd"}, "unknown time zone"),
        ("now", {"zone": "Europe"}, "unknown time zone"),
        ("convert", {"value": 1, "source": "m", "target": "kg"}, "no way to convert"),
        ("convert", {"value": 1, "source": "furlong", "target": "m"}, "unknown unit"),
        ("slow", {"seconds": 1e9}, "60"),
    ],
)
async def test_errors_of_tools_say_what_is_wrong(
    url: str, tool: str, arguments: dict[str, object], message: str
) -> None:
    async with Client(url) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert message in result.content[0].model_dump()["text"]


async def test_a_page_that_rebinds_its_name_to_loopback_is_refused(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(url, json={}, headers={"Host": "evil.example:80"})
    assert answer.status_code == 421


async def test_the_url_is_the_same_at_the_next_start(directory: DataDirectory, url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "is_free", lambda port: True)
        patch.setattr(demo, "end_orphan", _nothing)
        assert (await demo.server(directory)).url == url


async def _nothing(*_: object) -> None:
    """Leave the running child alone."""
