"""The connection to ClickHouse: a server by URL, or the engine in this process (chDB).

The client is synchronous, so it works on threads: one that writes, a few that read, each thread with a client
of its own (a chDB client serves one call at a time; HTTP clients would share a session).
"""

import asyncio
import contextlib
import fcntl
import os
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from libs.common.errors import LockgateError, Unavailable
from libs.common.lifecycle import cancel
from services.activity.migrate import migrate, retain
from services.activity.settings import ActivitySettings

log = structlog.get_logger(__name__)

READERS = 3
RETRY_AFTER = 2.0  # seconds between attempts to reach a server that was away at start

Rows = list[dict[str, Any]]
Parameters = Mapping[str, object]
T = TypeVar("T")

# One insert is one block, so that it is there as a whole or not at all; it is done when the call returns.
_INSERT_SETTINGS = {
    "date_time_input_format": "best_effort",
    "input_format_skip_unknown_fields": 1,  # a newer gateway may know fields that we do not
    "input_format_parallel_parsing": 0,
    "max_insert_threads": 1,
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}

# Codes with which ClickHouse says that it cannot understand the rows, whenever and however often they come.
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
_UNACCEPTABLE = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        306,  # TOO_DEEP_RECURSION
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        467,  # CANNOT_PARSE_BOOL
    }
)
_TIMEOUT_EXCEEDED = 159


class Unacceptable(LockgateError):
    """ClickHouse cannot understand these rows. None of them was inserted."""


class DatabaseInUse(LockgateError):
    """Another process has the directory of the in-process engine open."""


class QueryTooLong(LockgateError):
    """A read took longer than it may."""

    status, type, title = 503, "query-too-long", "This took too long; narrow the filter or the time range"


class ClickHouse:
    """The database of this service, migrated. `problem` says why it cannot be used now, or is None."""

    def __init__(self, settings: ActivitySettings) -> None:
        self._settings = settings
        self._guard: int | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._writer = _Lane("clickhouse-writer", 1, self._connect_writer)
        self._readers = _Lane("clickhouse-reader", READERS, self._connect_reader)
        self.problem: str | None = "ClickHouse has not been reached yet"

    # -- life -------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Where the in-process engine keeps its files."""
        return self._settings.data_dir / "clickhouse"

    async def start(self) -> None:
        """Open and migrate the database. A server that is away is waited for in the background.

        Raises `DatabaseInUse`, or `Unavailable` when the in-process engine cannot be opened.
        """
        if self._settings.activity_clickhouse_url is None:
            self._lock_directory()
        try:
            await self._prepare()
        except Unavailable as error:
            if self._guard is not None:
                await self.stop()
                raise
            log.warning("clickhouse_away", error=str(error))
            self._preparing = asyncio.create_task(self._prepare_later(), name="clickhouse-prepare")

    async def stop(self) -> None:
        await cancel(self._preparing)
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.close)
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def _lock_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._guard = os.open(
            self.directory.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._guard)
            self._guard = None
            raise DatabaseInUse(f"another process is using the database in {self.directory}") from error

    async def _prepare(self) -> None:
        await self._guarded(self._writer.run(self._migrate), "prepare")
        log.info("clickhouse_ready", in_process=self._guard is not None)

    async def _prepare_later(self) -> None:
        while True:
            await asyncio.sleep(RETRY_AFTER)
            with contextlib.suppress(Unavailable):
                await self._prepare()
                return

    def _migrate(self, client: Client) -> None:
        migrate(client)
        retain(client, self._settings.activity_retention_days)

    # -- connecting, on the lanes' threads --------------------------------------------------------

    def _connect(self, database: str | None, **settings: object) -> Client:
        url = self._settings.activity_clickhouse_url
        common: dict[str, Any] = {"database": database, "settings": settings, "tz_mode": "aware"}
        if url is None:
            return clickhouse_connect.get_client(interface="chdb", path=str(self.directory), **common)
        return clickhouse_connect.get_client(
            dsn=url.get_secret_value(),
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=60,
            client_name="lockgate",
            **common,
        )

    def _connect_writer(self) -> Client:
        database = self._settings.activity_clickhouse_database
        with contextlib.closing(self._connect(None)) as client:
            client.command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
        return self._connect(database)

    def _connect_reader(self) -> Client:
        seconds = self._settings.activity_read_seconds
        return self._connect(
            self._settings.activity_clickhouse_database, max_execution_time=seconds, readonly=2
        )

    # -- using it ---------------------------------------------------------------------------------

    async def insert(self, table: str, rows: bytes) -> None:
        """Insert JSON lines into `table`, all or none. Rows of one call must be of one month.

        Raises `Unacceptable` if it cannot understand them, `Unavailable` when the outcome is not known.
        """

        def work(client: Client) -> None:
            client.raw_insert(table, insert_block=rows, fmt="JSONEachRow", settings=_INSERT_SETTINGS)

        await self._guarded(self._writer.run(work), "insert")

    async def read(self, sql: str, parameters: Parameters) -> Rows:
        """Rows of a query as dictionaries; times are aware. Raises `QueryTooLong` or `Unavailable`."""
        if self._preparing and not self._preparing.done():
            raise Unavailable(self.problem or "")
        return await self._guarded(self._readers.run(lambda client: _rows(client, sql, parameters)), "read")

    async def read_own_writes(self, sql: str, parameters: Parameters) -> Rows:
        """As `read`, and sees every insert that any replica of ClickHouse has acknowledged."""
        consistent = {"select_sequential_consistency": 1}
        work = self._writer.run(lambda client: _rows(client, sql, parameters, consistent))
        return await self._guarded(work, "read")

    async def _guarded(self, work: "asyncio.Future[T]", verb: str) -> T:
        try:
            result = await work
        except (ClickHouseError, OSError) as error:
            raise self._translated(error, verb) from error
        self.problem = None
        return result

    def _translated(self, error: Exception, verb: str) -> LockgateError:
        code = getattr(error, "code", None)
        if verb == "insert" and code in _UNACCEPTABLE:
            return Unacceptable(str(error))
        if code == _TIMEOUT_EXCEEDED and verb == "read":
            return QueryTooLong()
        self.problem = f"ClickHouse cannot {verb}: {_without_secret(str(error), self._settings)}"
        log.warning("clickhouse_failed", verb=verb, code=code, error=self.problem)
        return Unavailable("The database of records does not answer; try again in a moment.")


def _rows(client: Client, sql: str, parameters: Parameters, settings: dict[str, Any] | None = None) -> Rows:
    return list(client.query(sql, parameters=dict(parameters), settings=settings).named_results())


def _without_secret(text: str, settings: ActivitySettings) -> str:
    url = settings.activity_clickhouse_url
    return text.replace(url.get_secret_value(), "[clickhouse url]") if url else text


class _Lane:
    """Threads with a client each. Clients are made when they are first needed, and again until that works."""

    def __init__(self, name: str, width: int, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(width, thread_name_prefix=name)
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def run(self, work: Callable[[Client], T]) -> "asyncio.Future[T]":
        """`work` with a client, on one of the threads. It goes on when the future is cancelled."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._with_client, work)

    def _with_client(self, work: Callable[[Client], T]) -> T:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            client = self._connect()
        try:
            return work(client)
        finally:
            self._idle.put(client)

    def close(self) -> None:
        """Wait for what is running, then disconnect."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().close()
