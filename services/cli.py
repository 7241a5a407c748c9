"""The `lockgate` command. It imports what the chosen subcommand needs, and no more."""

import asyncio
import os
from collections.abc import Coroutine
from functools import partial
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services.embedded.catalog import NAMES, Name, create_app, settings_class

FAILED = 1
BAD_SETTINGS = 2
INTERRUPTED = 130  # ended by SIGINT before it was up, as a shell counts it

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Lockgate: every MCP tool call authenticated, decided and recorded.",
)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 lets the system choose.")]
Data = Annotated[Path, typer.Option(help="Directory that keeps everything; created if missing.")]
PublicUrl = Annotated[
    str | None,
    typer.Option(
        envvar="LOCKGATE_PUBLIC_URL", help="Origin under which people and clients reach this, if another."
    ),
]
Demo = Annotated[bool, typer.Option(help="Run the demo MCP server too.")]
ServiceName = Annotated[Name, typer.Argument(help="The service to run.")]


def main() -> None:
    """Entry point of the command."""
    os.umask(0o077)  # databases, journals and logs are for nobody else
    app()


@app.command()
def up(
    data: Data = Path("data"),
    port: Port = 8080,
    host: Host = "127.0.0.1",
    public_url: PublicUrl = None,
    demo: Demo = True,
) -> None:
    """Run all of Lockgate in this process, on one port and in one directory."""
    from libs.common.settings import BadSettings
    from services.embedded.child import ChildFailed
    from services.embedded.console import Console
    from services.embedded.datadir import DataDirectoryError
    from services.embedded.lifespan import StartupFailed
    from services.embedded.server import CannotListen
    from services.embedded.up import Embedded, Options

    warn_of_unknown_variables(*NAMES)
    try:
        run(Embedded(Options(data, host, port, public_url, demo), Console()).run())
    except BadSettings as error:
        fail(f"these settings are wrong:\n{error}", BAD_SETTINGS)
    except (DataDirectoryError, CannotListen, ChildFailed, StartupFailed) as error:
        fail(str(error))


@app.command()
def serve(name: ServiceName, port: Port = 8080, host: Host = "127.0.0.1") -> None:
    """Run one service by itself, configured by LOCKGATE_* variables of the environment."""
    from libs.common import logs
    from libs.common.settings import BadSettings, load
    from services.embedded.lifespan import StartupFailed
    from services.embedded.server import CannotListen, serve_alone

    warn_of_unknown_variables(name)
    try:
        settings = load(settings_class(name))
        logs.configure(settings)
        run(serve_alone(name, partial(create_app, name, settings), settings, host, port))
    except BadSettings as error:
        fail(f"these settings are wrong:\n{error}", BAD_SETTINGS)
    except (CannotListen, StartupFailed) as error:
        fail(str(error))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"lockgate {distribution_version('lockgate')}")


def run(main: Coroutine[None, None, None]) -> None:
    """Run `main` on uvloop. Exits with 130 when a signal came before it was up."""
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def warn_of_unknown_variables(*names: Name) -> None:
    """Name the `LOCKGATE_*` variables that nothing reads: likely typing errors."""
    from libs.common.settings import unknown_variables

    for variable in unknown_variables(*map(settings_class, names)):
        typer.echo(f"lockgate: {variable} is no setting and has no effect", err=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong and exit with `code`."""
    typer.echo(f"lockgate: {message}", err=True)
    raise typer.Exit(code)
