"""The `lockgate` command. It imports what the chosen subcommand needs, and no more."""

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator
from functools import partial
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from services.embedded.catalog import NAMES, Name, create_app, settings_class

if TYPE_CHECKING:
    from libs.common.settings import Settings
    from services.access_code import Remote

FAILED = 1
BAD_SETTINGS = 2
DIFFERS = 2  # what `plan --exit-code` says
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
WorkerCount = Annotated[
    int | None, typer.Option(min=1, max=256, help="Run the gateway as this many processes on one port.")
]
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
    from services.embedded.console import Console
    from services.embedded.up import Embedded, Options

    warn_of_unknown_variables(*NAMES)
    with failures():
        run(Embedded(Options(data, host, port, public_url, demo), Console()).run())


@app.command()
def serve(
    name: ServiceName, port: Port = 8080, host: Host = "127.0.0.1", workers: WorkerCount = None
) -> None:
    """Run one service by itself, configured by LOCKGATE_* variables of the environment."""
    from services.embedded.server import listen, serve_alone
    from services.embedded.workers import serve_workers

    if workers and name != "gateway":
        fail("only the gateway runs as several workers: --workers is for `lockgate serve gateway`")
    warn_of_unknown_variables(name)
    with failures():
        settings = settings_of(name)
        open_listener = partial(listen, host, port)
        if workers:
            run(serve_workers(settings, open_listener, workers))
        else:
            run(serve_alone(name, partial(create_app, name, settings), settings, open_listener))


@app.command(hidden=True)
def worker(descriptor: int) -> None:
    """Run one of the gateway processes of `serve gateway --workers`, on its listening socket."""
    from services.embedded.server import serve_alone
    from services.embedded.workers import say_ready, shared_listener

    with failures():
        settings = settings_of("gateway")
        create = partial(create_app, "gateway", settings)
        listener, ready = partial(shared_listener, descriptor), partial(say_ready, settings)
        run(serve_alone("gateway", create, settings, listener, ready))


def settings_of(name: Name) -> "Settings":
    """The settings of service `name` from the environment, with logging set up by them."""
    from libs.common import logs
    from libs.common.settings import load

    settings = load(settings_class(name))
    logs.configure(settings)
    return settings


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """End the command with a sentence for what keeps a service from running."""
    from libs.common.settings import BadSettings
    from services.embedded.child import ChildFailed
    from services.embedded.datadir import DataDirectoryError
    from services.embedded.lifespan import StartupFailed
    from services.embedded.server import CannotListen

    try:
        yield
    except BadSettings as error:
        fail(f"these settings are wrong:\n{error}", BAD_SETTINGS)
    except (DataDirectoryError, CannotListen, ChildFailed, StartupFailed) as error:
        fail(str(error))


@app.command()
def login(
    url: Annotated[str, typer.Argument(help="URL of an MCP server behind Lockgate.")],
    everything: Annotated[
        bool, typer.Option("--json", help="Print the whole answer, with the refresh token.")
    ] = False,
) -> None:
    """Print an access token for a client that wants one pasted, after you have signed in by browser."""
    import json

    try:
        import httpx2
    except ImportError:
        fail("this installation is of one service only: install lockgate[auth] to sign in from here")

    from services.device_login import LoginFailed, login

    require_url(url, f"{HERE}/mcp/demo")
    try:
        with httpx2.Client(timeout=30) as http:
            tokens = login(url, show_code, http)
    except LoginFailed as error:
        fail(str(error))
    minutes = int(tokens.get("expires_in", 0)) // 60
    typer.echo(f"The token is good for {minutes} minutes; --json also prints one that renews it.", err=True)
    typer.echo(json.dumps(tokens) if everything else tokens["access_token"])


Url = Annotated[
    str, typer.Option(envvar="LOCKGATE_URL", help="Where Lockgate is, as people and clients reach it.")
]
Token = Annotated[
    str,
    typer.Option(
        envvar="LOCKGATE_TOKEN", help="An administrator's access token; without one you sign in by browser."
    ),
]
DocumentFile = Annotated[Path, typer.Option("--file", "-f", help="The access document (YAML).")]
HERE = "http://127.0.0.1:8080"


@app.command()
def export(
    url: Url = HERE,
    token: Token = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, not to standard output.")
    ] = None,
) -> None:
    """Write who may use what (groups, members, rules, quotas) as a YAML document."""
    from services.access_code import written

    with access_to(url, token) as remote:
        text = written(remote.document())
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        typer.echo(text, nl=False)


@app.command()
def plan(
    file: DocumentFile,
    url: Url = HERE,
    token: Token = "",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 if anything differs.")] = False,
) -> None:
    """Show what a document would change, and who would gain and lose which tools."""
    from services.access_code import read

    with access_to(url, token) as remote:
        planned = remote.plan(read(file))
    show_plan(planned)
    if exit_code and planned["differences"]:
        raise typer.Exit(DIFFERS)


@app.command()
def apply(
    file: DocumentFile,
    url: Url = HERE,
    token: Token = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make everything as a document says. Shows the plan first; applied is that plan, or nothing."""
    from services.access_code import read

    with access_to(url, token) as remote:
        document = read(file)
        planned = remote.plan(document)
        show_plan(planned)
        if not planned["differences"]:
            return
        if not yes:
            typer.confirm("Apply this?", abort=True, err=True)
        receipt = remote.apply(document, planned["etag"])["receipt"]
    if receipt["complete"]:
        typer.echo(f"Done: it holds on every replica ({len(receipt['replicas'])}).")
    else:
        typer.echo(f"Saved. {receipt['detail'] or 'It is not confirmed by every replica yet'}.")


@contextlib.contextmanager
def access_to(url: str, token: str) -> Iterator["Remote"]:
    """The policy API at `url`. Ends the command with a sentence for what does not work."""
    try:
        import httpx2

        from services.access_code import AccessFailed, Remote
    except ImportError:
        fail("this installation is of one service only: install lockgate[embedded] to work on access here")
    from services.device_login import LoginFailed, login_to_api

    require_url(url, HERE)
    url = url.rstrip("/")
    try:
        with httpx2.Client(timeout=60, base_url=url) as http:
            token = token or login_to_api(url, show_code, http)["access_token"]
            http.headers["authorization"] = f"Bearer {token}"
            yield Remote(http)
    except (LoginFailed, AccessFailed) as error:
        fail(str(error))


def require_url(url: str, example: str) -> None:
    """End the command if `url` cannot be one."""
    if not url.startswith(("http://", "https://")):
        fail(f"{url!r} is no URL: give the whole one, such as {example}")


def show_plan(planned: dict[str, Any]) -> None:
    from services.access_code import lines

    colours = {"+": typer.colors.GREEN, "-": typer.colors.RED, "~": typer.colors.YELLOW}
    for line in lines(planned):
        typer.secho(line, fg=colours.get(line.lstrip()[:1]))


def show_code(page: str, code: str) -> None:
    typer.echo(f"Open {page}\nand check that it shows {code}.", err=True)


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


if __name__ == "__main__":
    main()
