"""`python -m examples.demo`: serve the demo over Streamable HTTP until interrupted."""

import argparse

import uvicorn

from examples.demo.server import create_app


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="A small demo MCP server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args()
    uvicorn.run(
        create_app(arguments.host),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
