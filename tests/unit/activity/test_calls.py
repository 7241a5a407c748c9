"""What people see of the calls: the API and the page, by role, filtered, page after page."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx2
import pytest

from libs.common.clock import iso
from libs.common.records import AdminEvent, AnyRecord, AuthEvent, CallRecord, Status, table_of
from services.activity.app import create_app
from services.activity.settings import ActivitySettings
from tests.conftest import eventually
from tests.unit.activity.records_made import NOON, Publisher, call, calls, encoded
from tests.unit.conftest import Person, Serve, SignIn


class Console:
    """The running service, an administrator and two members of it."""

    def __init__(self, client: httpx2.AsyncClient, people: dict[str, Person], publisher: Publisher) -> None:
        self.client, self.people, self._publisher = client, people, publisher
        self._published = 0

    async def record(self, *records: CallRecord) -> None:
        """Let the calls happen; return when they can be seen."""
        for record in records:
            self._published += 1
            record.seq = self._published
        await self._publisher.publish(list(records))
        counts = self.client.app.state.ingest.counts  # type: ignore[attr-defined]
        await eventually(lambda: counts.lines == self._published)

    async def insert(self, *records: AnyRecord) -> None:
        """Put records of one kind into the database as they are: the stream would not take large ones."""
        clickhouse = self.client.app.state.clickhouse  # type: ignore[attr-defined]
        await clickhouse.insert(table_of(records[0]), b"\n".join(encoded(records)))

    async def api(self, path: str, as_: str = "admin", **query: str | int) -> httpx2.Response:
        headers = self.people[as_].script
        return await self.client.get(f"/api/activity{path}", params=query, headers=headers)

    async def ids(self, as_: str = "admin", **query: str | int) -> list[str]:
        answer = await self.api("/calls", as_, **query)
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["items"]]

    async def page(self, path: str = "/activity", as_: str = "admin") -> str:
        answer = await self.client.get(path, headers=self.people[as_].browser)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture
async def console(
    settings: ActivitySettings, sign_in: SignIn, serve: Serve, publisher: Publisher
) -> AsyncIterator[Console]:
    people = {
        "admin": await sign_in("admin", "root"),
        "auditor": await sign_in("auditor", "iris"),
        "ada": await sign_in("member", "ada"),
        "bob": await sign_in("member", "bob"),
    }
    app = create_app(settings)
    client = await serve(app)
    client.app = app  # type: ignore[attr-defined]
    yield Console(client, people, publisher)


def of(person: str, seq: int, **fields: object) -> CallRecord:
    """A call by `person`, with an id that says whose it is."""
    values: dict[str, object] = {"user": person, "email": f"{person}@example.com", "id": f"{person}-{seq}"}
    return call(seq, "replica1", **{**values, **fields})


# -- who sees what ------------------------------------------------------------------------------------


async def test_members_see_their_own_calls_only(console: Console) -> None:
    await console.record(of("ada", 1), of("bob", 2))
    assert await console.ids("admin") == ["bob-2", "ada-1"]
    assert await console.ids("auditor") == ["bob-2", "ada-1"]
    assert await console.ids("ada") == ["ada-1"]
    assert await console.ids("ada", user="bob") == []
    assert (await console.api("/calls/bob-2", "ada")).status_code == 404
    assert (await console.api("/calls/ada-1", "ada")).status_code == 200
    page = await console.page(as_="ada")
    assert 'id="call-ada-1"' in page
    assert "bob" not in page


async def test_events_are_for_auditors(console: Console, publisher: Publisher) -> None:
    login = (
        b'{"id":"e1","time":"%s","replica":"auth1","seq":1,"event":"logged_in","outcome":"ok","user":"ada"}'
    )
    change = (
        b'{"id":"e2","time":"%s","replica":"p1","seq":1,"event":"server_saved","actor":"root","revision":7}'
    )
    time = iso(NOON).encode()
    await publisher.publish_lines([login % time], 1, "auth1", "auth_events")
    await publisher.publish_lines([change % time], 1, "p1", "admin_events")
    counts = console.client.app.state.ingest.counts  # type: ignore[attr-defined]
    await eventually(lambda: counts.lines == 2)
    for path in ("/auth-events", "/admin-events", "/pipeline"):
        assert (await console.api(path, "ada")).status_code == 403
    assert (await console.api("/auth-events", "auditor")).json()["items"][0]["event"] == "logged_in"
    assert (await console.api("/admin-events", "auditor")).json()["items"][0]["revision"] == 7


async def test_nobody_sees_anything_without_signing_in(console: Console) -> None:
    assert (await console.client.get("/api/activity/calls")).status_code == 401
    answer = await console.client.get("/activity?tool=add", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next={quote('/activity?tool=add', safe='')}"


async def test_the_start_page_is_the_activity(console: Console) -> None:
    answer = await console.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/activity")


# -- filters ------------------------------------------------------------------------------------------


async def test_filters_narrow_the_list(console: Console) -> None:
    await console.record(
        of("ada", 1, tool="add"),
        of("ada", 2, tool="divide", status="error"),
        of("bob", 3, server="files", tool="read"),
        of("bob", 4, server="files", tool="read", status="denied"),
    )
    assert await console.ids(tool="add") == ["ada-1"]
    assert await console.ids(server="files") == ["bob-4", "bob-3"]
    assert await console.ids(status="error") == ["ada-2"]
    assert await console.ids(user="ada") == ["ada-2", "ada-1"]
    assert await console.ids(user="Bob@Example.com", status="denied") == ["bob-4"]
    assert await console.ids(server="files", tool="add") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"user": "BOB"}, ["bob-2"]),
        ({"user": "@example"}, ["bob-2", "ada-1"]),
        ({"user": "bo%"}, []),
        ({"server": "EMO"}, ["ada-1"]),
        ({"server": "d_mo"}, []),
        ({"tool": "Word"}, ["bob-2"]),
        ({"tool": "ÜBER"}, ["bob-2"]),
    ],
)
async def test_user_server_and_tool_are_found_by_a_part_in_any_case(
    console: Console, query: dict[str, str], found: list[str]
) -> None:
    await console.record(of("ada", 1), of("bob", 2, server="files", tool="count_words_über"))
    assert await console.ids(**query) == found


async def test_a_user_id_is_found_as_a_whole_only(console: Console) -> None:
    await console.record(of("ada", 1, user="01k7abc", email="ada@example.com"))
    assert await console.ids(user="01k7abc") == ["ada-1"]
    assert await console.ids(user="01k7") == []


async def test_a_part_of_anothers_address_shows_a_member_nothing(console: Console) -> None:
    await console.record(of("ada", 1), of("bob", 2))
    assert await console.ids("ada", user="example") == ["ada-1"]


async def test_time_range_includes_its_start_and_not_its_end(console: Console) -> None:
    await console.record(of("ada", 1), of("ada", 2), of("ada", 3))
    second, third = (iso(NOON + timedelta(seconds=seq)) for seq in (2, 3))
    assert await console.ids(**{"from": second}) == ["ada-3", "ada-2"]
    assert await console.ids(to=third) == ["ada-2", "ada-1"]
    assert await console.ids(**{"from": second, "to": third}) == ["ada-2"]


async def test_protocol_traffic_shows_when_asked_for_refused_or_failed(console: Console) -> None:
    await console.record(
        of("ada", 1, method="tools/list", tool=""),
        of("ada", 2, method="initialize", tool="", status="denied"),
        of("ada", 3, method="server/discover", tool="", status="failed"),
        of("ada", 4),
    )
    assert await console.ids() == ["ada-4", "ada-3", "ada-2"]
    assert await console.ids(methods="all") == ["ada-4", "ada-3", "ada-2", "ada-1"]
    assert await console.ids(method="tools/list") == ["ada-1"]


@pytest.mark.parametrize(
    "value",
    ["'", "x' OR '1'='1", "\\", "{x:String}", "%s", "a\tb", "ü", "\x00", "`", "\\'; DROP TABLE tool_calls"],
)
async def test_values_are_values_whatever_they_contain(console: Console, value: str) -> None:
    await console.record(of("ada", 1, tool="add"), of("ada", 2, tool=value))
    assert await console.ids(tool=value) == ["ada-2"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"status": "fine"}, "status"),
        ({"methods": "some"}, "methods"),
        ({"from": "yesterday"}, "from"),
        ({"after": "nonsense"}, "after"),
        ({"after": "2026-99-99T00:00:00Z_x"}, "after"),
    ],
)
async def test_a_bad_parameter_is_named(console: Console, query: dict[str, str | int], named: str) -> None:
    answer = await console.api("/calls", "admin", **query)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


# -- pages of the list --------------------------------------------------------------------------------


async def test_pages_neither_repeat_nor_skip_while_calls_arrive(console: Console) -> None:
    same_moment = {"time": iso(NOON)}
    first = [of("ada", seq, id=f"old-{seq:03}", **same_moment) for seq in range(70)]
    await console.record(*first)
    seen: list[str] = []
    cursor = ""
    for turn in range(10):
        answer = (await console.api("/calls", limit=30, after=cursor)).json()
        seen += [row["id"] for row in answer["items"]]
        cursor = answer["next"]
        if not cursor:
            break
        await console.record(of("ada", 1000 + turn, time=iso(datetime.now(UTC))))
    assert seen == [f"old-{seq:03}" for seq in reversed(range(70))]


async def test_the_default_page_has_thirty_calls(console: Console) -> None:
    await console.record(*calls(1, 31))
    answer = (await console.api("/calls")).json()
    assert len(answer["items"]) == 30
    rest = (await console.api("/calls", after=answer["next"])).json()
    assert (len(rest["items"]), rest["next"]) == (1, None)


# -- one call -----------------------------------------------------------------------------------------


async def test_one_call_has_everything_that_was_recorded(console: Console) -> None:
    record = of(
        "ada",
        1,
        time="2026-11-03T10:11:12.123456Z",
        status="denied",
        input='{"name":"add","arguments":{"big":123456789012345678901234567890}}',
        output="",
        reason="tool_denied",
        rule="group.default",
        revision=42,
        error_code=-32001,
        http_status=403,
    )
    await console.record(record)
    body = (await console.api("/calls/ada-1")).json()
    expected = {name: getattr(record, name) for name in record.__struct_fields__}
    assert body == expected


async def test_an_unknown_call_is_not_found(console: Console) -> None:
    answer = await console.api("/calls/none")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:lockgate:error:not-found"


# -- the page -----------------------------------------------------------------------------------------


async def test_the_page_shows_calls_and_opens_to_input_output_and_decision(console: Console) -> None:
    await console.record(
        of("ada", 1, status="denied", reason="tool_denied", rule="group.default", revision=42, output=""),
        of("bob", 2, input='{"name":"<script>alert(1)</script>"}', duration_us=1_234_000),
    )
    page = await console.page()
    assert page.index('id="call-bob-2"') < page.index('id="call-ada-1"')
    assert page.count("<details") == 2
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "1.23 s" in page
    denied = page[page.index('id="call-ada-1"') :]
    assert '<span class="tag warn" title="tool_denied">denied</span>' in denied
    assert "refused by group.default at revision 42, tool_denied" in text(denied)


def text(page: str) -> str:
    """What a reader sees of `page`."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize(
    ("status", "reason"), [("ok", "allowed"), ("error", "allowed"), ("failed", "upstream_timeout")]
)
async def test_why_a_call_was_allowed_does_not_read_as_why_it_failed(
    console: Console, status: Status, reason: str
) -> None:
    await console.record(of("ada", 1, status=status, reason=reason, rule="group.default", revision=42))
    for path in ("/activity", "/activity/ada-1"):
        page = await console.page(path)
        assert "Decision allowed by group.default at revision 42" in text(page)
        assert ("<dt>Reason</dt>" in page) == (reason != "allowed")
        assert 'title="allowed"' not in page


async def test_refresh_leads_to_what_is_shown(console: Console) -> None:
    await console.record(*calls(1, 40))
    assert 'href="/activity">Refresh</a>' in await console.page()
    path = "/activity?tool=add&after=" + quote((await console.api("/calls")).json()["next"])
    link = re.search(r'href="([^"]+)">Refresh</a>', await console.page(path))
    assert link
    assert httpx2.URL(link[1].replace("&amp;", "&")).params == httpx2.URL(path).params


async def test_the_filter_is_in_the_url_and_in_the_form(console: Console) -> None:
    await console.record(of("ada", 1, tool="add"), of("ada", 2, tool="divide", status="error"))
    page = await console.page("/activity?user=ada%40example.com&server=demo&tool=divide&status=error")
    assert 'id="call-ada-2"' in page
    assert 'id="call-ada-1"' not in page
    assert 'name="tool" value="divide"' in page
    assert 'name="user" value="ada@example.com"' in page
    assert "<option selected>error</option>" in page


async def test_older_and_newest_lead_through_the_pages_and_keep_the_filter(console: Console) -> None:
    await console.record(*calls(1, 40))
    first = await console.page("/activity?tool=add")
    assert "Newest</a>" not in first
    older = re.search(r'href="([^"]+)" rel="next">Older', first)
    assert older
    second = await console.page(older[1].replace("&amp;", "&"))
    assert second.count("<details") == 10
    assert 'href="/activity?tool=add">Newest</a>' in second
    assert "Older</a>" not in second


async def test_a_large_payload_is_cut_in_the_list_and_whole_on_its_own_page(console: Console) -> None:
    large = '{"text":"' + "x" * 50_000 + 'END"}'
    await console.record(of("ada", 1, output=large, output_bytes=len(large)))
    page = await console.page()
    assert len(page) < 40_000
    assert '<a href="/activity/ada-1">Show all that was recorded</a>' in page
    assert "xEND" in await console.page("/activity/ada-1", "ada")


TEXTS = ("server", "tool", "method", "user", "email", "group", "grant", "client_id", "client_name", "address",
         "session", "protocol", "reason", "rule", "detail", "input_sha256", "output_sha256")  # fmt: skip


async def test_values_of_a_megabyte_do_not_make_large_pages_or_lists(console: Console) -> None:
    huge: dict[str, object] = {name: f"{name} " + "ü" * 500_000 for name in TEXTS}
    await console.insert(
        of("ada", 1, **huge, status="denied"), of("ada", 2, **huge | {"method": "tools/call"})
    )
    for query in ("?methods=all", ""):
        assert len(await console.page(f"/activity{query}")) < 100_000
    listed = await console.api("/calls", methods="all")
    assert len(listed.content) < 100_000
    assert [row["detail"][:8] for row in listed.json()["items"]] == ["detail ü", "detail ü"]
    assert len(await console.page("/activity/ada-1")) < 50_000
    assert (await console.api("/calls/ada-1")).json()["tool"] == huge["tool"]


async def test_a_long_name_is_cut_and_has_more_of_it_in_its_title(console: Console) -> None:
    await console.record(of("ada", 1, tool="x" * 1000))
    page = await console.page()
    assert f'title="{"x" * 499}…">{"x" * 199}…<' in page
    assert f"{'x' * 257}" not in page[: page.index('id="call-ada-1"')]  # nor suggested in the filter


async def test_events_are_listed_without_huge_texts(console: Console) -> None:
    huge = "x" * 1_000_000
    time = iso(NOON)
    login = AuthEvent(
        id="e1",
        time=time,
        replica="a1",
        seq=1,
        event="logged_in",
        outcome="ok",
        client_name=huge,
        detail=huge,
    )
    change = AdminEvent(
        id="e2", time=time, replica="p1", seq=1, event="server_saved", actor="root", before=huge, after=huge
    )
    await console.insert(login)
    await console.insert(change)
    assert len((await console.api("/auth-events")).content) < 5_000
    assert len((await console.api("/admin-events")).content) < 110_000


async def test_empty_pages_say_what_to_do_next(console: Console) -> None:
    assert "Connect an MCP client" in await console.page()
    assert "Show all calls" in await console.page("/activity?tool=none")


async def test_suggestions_are_for_auditors_only(console: Console) -> None:
    await console.record(of("bob", 1, server="files", tool="read"))
    assert '<option value="files">' in await console.page()
    member = await console.page(as_="ada")
    assert "files" not in member
    assert "@example.com" not in member.replace("ada@example.com", "")


# -- health -------------------------------------------------------------------------------------------


async def test_it_is_ready_when_all_it_needs_is_there(console: Console) -> None:
    client = console.client
    state = client.app.state  # type: ignore[attr-defined]
    await eventually(lambda: state.consumer.problem is None)
    assert (await client.get("/readyz")).status_code == 200
    state.clickhouse.problem = "ClickHouse cannot insert: disk full"
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failing"] == {"clickhouse": "ClickHouse cannot insert: disk full"}


async def test_the_pipeline_reports_what_is_missing(console: Console, publisher: Publisher) -> None:
    await publisher.publish(calls(5, 6))
    counts = console.client.app.state.ingest.counts  # type: ignore[attr-defined]
    await eventually(lambda: counts.lines == 2)
    body = (await console.api("/pipeline")).json()
    assert body["missing_lines"] == 4
    assert body["gaps"] == [{"table": "tool_calls", "replica": "replica1", "first": 1, "last": 4}]
    assert body["problem"] is None
