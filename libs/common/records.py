"""The records of what happened: one struct per ClickHouse table, one JSON line per row.

A line is made once, where the thing happened, and travels as it is: journal, stream, table. Field names are
column names. Each line carries the `replica` that made it and a `seq` without gaps per replica and table.
"""

from typing import Literal, TypeAlias

import msgspec

Table: TypeAlias = Literal["tool_calls", "auth_events", "admin_events"]
TABLES: tuple[Table, ...] = ("tool_calls", "auth_events", "admin_events")

# ok: answered; error: the tool or the upstream answered with an error; denied: Lockgate refused;
# failed: no usable answer came from the upstream; cancelled: the client went away; unknown: the replica died.
Status: TypeAlias = Literal["admitted", "ok", "error", "denied", "failed", "cancelled", "unknown"]


class Record(msgspec.Struct, kw_only=True):
    """Common to all tables. `time` is ISO 8601 in UTC with microseconds."""

    replica: str = ""
    seq: int = 0
    id: str
    time: str


class CallRecord(Record, kw_only=True):
    """One request of a known user to a server, forwarded or refused. Durations in µs, sizes in bytes.

    `input` holds the JSON of `params`, `output` that of `result` or `error`, both cut at the record limit;
    the byte counts are those of the whole, and a hash is given for what was cut.
    """

    status: Status
    server: str
    method: str
    tool: str = ""  # the name of the tool or prompt, or the URI of the resource
    user: str
    email: str
    group: str = ""
    grant: str
    client_id: str
    client_name: str = ""
    address: str = ""
    session: str = ""  # a short hash, never the id itself
    protocol: str = ""  # MCP-Protocol-Version as asked for
    http_status: int = 0
    error_code: int = 0  # of the JSON-RPC error
    reason: str = ""  # reason id of the decision or the failure
    rule: str = ""  # what decided it
    revision: int = 0  # of the control log at the decision
    detail: str = ""
    duration_us: int = 0
    first_byte_us: int = 0
    input: str = ""
    input_bytes: int = 0
    input_sha256: str = ""
    output: str = ""
    output_bytes: int = 0
    output_sha256: str = ""


class AuthEvent(Record, kw_only=True):
    """A login, grant, refresh, revocation or refused token. `event` is in the past tense."""

    event: str
    outcome: Literal["ok", "refused"]
    reason: str = ""
    user: str = ""
    email: str = ""
    grant: str = ""
    client_id: str = ""
    client_name: str = ""
    address: str = ""
    server: str = ""
    detail: str = ""


class AdminEvent(Record, kw_only=True):
    """A change by an administrator, or of the vault. `before` and `after` are JSON without secrets."""

    event: str
    actor: str
    email: str = ""
    subject: str = ""  # what was changed, as a key of the control log where it has one
    before: str = ""
    after: str = ""
    revision: int = 0
    detail: str = ""


AnyRecord: TypeAlias = CallRecord | AuthEvent | AdminEvent

_TABLE_OF: dict[type[AnyRecord], Table] = {
    CallRecord: "tool_calls",
    AuthEvent: "auth_events",
    AdminEvent: "admin_events",
}


def table_of(record: AnyRecord) -> Table:
    """The ClickHouse table in which `record` is a row."""
    return _TABLE_OF[type(record)]


# The stream between the journals and the activity service.
STREAM = "ACTIVITY"
SUBJECTS = "activity.>"
FIRST_SEQ = "Lockgate-First-Seq"  # headers of each message
LAST_SEQ = "Lockgate-Last-Seq"


def subject_of(table: Table, replica: str) -> str:
    """Where the lines of one table and replica go: `activity.<table>.<replica>`, strictly in order."""
    return f"activity.{table}.{replica}"
