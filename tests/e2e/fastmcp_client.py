"""FastMCP's client, given a server's URL and nothing else: `python -m tests.e2e.fastmcp_client URL SECONDS`.

It calls a tool, waits until its token has expired, and calls it again.
"""

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client


async def main(url: str, seconds: float) -> None:
    async with Client(url, auth="oauth") as client:
        await count(client, "one two three")
        await asyncio.sleep(seconds)
        await count(client, "four five")


async def count(client: Client[Any], text: str) -> None:
    result = await client.call_tool("word_count", {"text": text})
    print(json.dumps(result.structured_content), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
