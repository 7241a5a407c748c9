"""Requests that services make of each other over the bus: subjects and messages."""

from typing import Literal, TypeAlias

import msgspec

OPEN_CREDENTIAL = "credentials.open"


class OpenCredential(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for the credential `credential.<slug>.<user>`, sealed to their `public_key`.

    `origin` (libs.common.control.entries.destination_of) is where they will send it, if they say so: a
    credential for another is refused then, whatever the one that answers knows of the server.
    """

    slug: str
    user: str
    public_key: str
    asker: str = "gateway"  # the service, for the record
    origin: str = ""


class SealedCredential(msgspec.Struct, frozen=True, kw_only=True):
    """`box` opens (libs.common.sealed, context `credential_context`) to a JSON `Injection`, good until
    `expires_at` (Unix seconds; 0 where it does not end, or nobody knows when)."""

    version: int
    box: str
    expires_at: float = 0.0


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential adds: headers and query parameters to a request upstream, or variables to the
    environment of a process. The query's values are not yet percent-encoded."""

    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    environment: dict[str, str] = {}

    def __repr__(self) -> str:
        """Where values go, without them."""
        return f"Injection({[*self.headers]}, {[*self.query]}, {[*self.environment]})"


def credential_context(slug: str, user: str, version: int) -> str:
    """Binds a sealed credential to what it is for."""
    return f"credential.{slug}.{user}.{version}"


# A token that the upstream does not take any more, or will not for long.
REFRESH_CREDENTIAL = "credentials.refresh"


class RefreshCredential(msgspec.Struct, frozen=True, kw_only=True):
    """The asker knows `credential.<slug>.<user>` at `version`, and needs a newer one. If there is one
    already, nothing is refreshed.

    Errors (libs.common.errors): `no-credential`; `credential-attention`, its owner has to connect again;
    `not-renewable`, there is nothing to renew it with; `provider-failed`, try again later.
    """

    slug: str
    user: str
    version: int
    asker: str = "gateway"  # the service, for the record


class RefreshedCredential(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version, which the control log has too."""

    version: int


# What a server offers; asked of any gateway, since only gateways reach servers and run their processes.
LEARN = "gateway.learn"


class LearnServer(msgspec.Struct, frozen=True, kw_only=True):
    """What does the server `slug` offer now? Asked as a client, with the organization's credential.

    The gateway waits until it knows the server's entry at `version` or later, and gives up after `within`
    seconds. That the server does not answer is an error (libs.common.errors) whose detail says why in one
    sentence, for administrators, and repeats no word that might hold a credential.
    """

    slug: str
    version: int = 0
    within: float = 8.0


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A tool or prompt by its name, a resource by its URI, a template by its URI template (RFC 6570).

    `description` is its first line, for people; it may be cut, or left out of an answer that grows too long.
    """

    name: str
    description: str = ""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """All that a server lists, whoever asks: every page of each list, those that it does not have empty.

    `definitions` are those of the tools (libs.common.definitions), packed.
    """

    tools: list[Offered] = []
    prompts: list[Offered] = []
    resources: list[Offered] = []
    templates: list[Offered] = []
    definitions: bytes = b""


# What a gateway noticed about a server's tools in a list that it passed on.
REPORT_TOOLS = "policy.report_tools"


class ReportTools(msgspec.Struct, frozen=True, kw_only=True):
    """The server `slug` lists tools that its entry, as of `version`, does not know so: `definitions` (packed,
    libs.common.definitions). `changed`: it says that its list of tools is another one now."""

    slug: str
    version: int
    definitions: bytes = b""
    changed: bool = False


class ToolsReported(msgspec.Struct, frozen=True, kw_only=True):
    """The report is taken into account from `version` of the server's entry on."""

    version: int


# The processes of stdio servers. Every gateway replica answers for itself (`Bus.gather`).
LIST_PROCESSES = "gateway.processes"

ProcessState: TypeAlias = Literal["starting", "running", "backing_off", "stopped"]


class ListProcesses(msgspec.Struct, frozen=True, kw_only=True):
    """Which processes of the server `slug` are there? All servers' if it is empty."""

    slug: str = ""


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a stdio server, or the last one where none runs.

    `user` is whose alone it is, empty for everybody's. `pid` is that of its supervisor, the parent of all
    that belongs to it. `ending` tells how it ended ("exited with status 1"). `errors` are the last lines that
    it wrote on standard error, without the credential.
    """

    server: str
    state: ProcessState
    user: str = ""
    pid: int | None = None
    started: str = ""  # ISO 8601
    ending: str = ""
    retry_in: float = 0.0  # seconds until it is tried again
    errors: list[str] = []


class ProcessList(msgspec.Struct, frozen=True, kw_only=True):
    """What runs at `replica`; `enabled`: it runs commands at all."""

    replica: str
    enabled: bool
    processes: list[ProcessReport] = []


# How far the quotas of a call are used up; asked of any gateway, since gateways count.
QUOTA_USE = "gateway.quota_use"

QuotaWindow: TypeAlias = Literal["minute", "day"]


class AskQuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """Against which quotas would a call of `tool` at `server` by `user` be counted now, and how far are they
    used? `group` is the user's, if they are in one. Nothing is counted by asking.

    Errors (libs.common.errors): `unavailable`, the counts cannot be read.
    """

    user: str
    server: str
    tool: str
    group: str = ""


class QuotaStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a quota: `used` of `limit` calls in the window that ends at `resets` (ISO 8601, UTC).

    `quota` is the quota's id. The next call is refused where `used >= limit`. What replicas have not told
    each other yet, at most half a second's calls, is not in `used`.
    """

    quota: str
    window: QuotaWindow
    limit: int
    used: int
    resets: str


class QuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """All limits that apply, in no order; none where no quota does."""

    limits: list[QuotaStanding] = []


# Calls as they were recorded, in order to decide them again. Not `activity.*`: the stream of records would
# take the question for one.
RECORDED_CALLS = "records.calls"


class AskRecordedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of `methods` to `servers` (empty: any) since a time (ISO 8601), newest first. `after` is the
    `next` of an earlier answer.

    Errors (libs.common.errors): `bad-request`, `unavailable`, `query-too-long`.
    """

    methods: list[str]
    since: str
    servers: list[str] = []
    after: str = ""
    limit: int = 200


class RecordedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request; fields as in libs.common.records.CallRecord. `input` is the JSON of its params; `cut`: it
    is not all of them, and empty."""

    id: str
    time: str
    user: str
    email: str
    client_id: str
    client_name: str
    server: str
    method: str
    tool: str
    status: str
    reason: str
    input: str
    cut: bool


class RecordedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """At most as many as fit into a message. `next` is empty at the end."""

    calls: list[RecordedCall] = []
    next: str = ""


# Which permission group somebody is in, where the organization's OpenID provider decides that.
ASSIGN_GROUP = "policy.assign_group"


class AssignGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Put `user` into the first of `groups` that there is, by id or else by name, or into the default.

    `email` and `source` (the issuer that says so) are for the record. Who is in it already stays so.
    """

    user: str
    groups: list[str]
    email: str = ""
    source: str = ""


class AssignedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The id of the group; `complete`: it holds on every replica (`libs.common.control.owner.Receipt`)."""

    group: str
    complete: bool
