"""Fields and templates: what they may be, what they make of values, and what cannot stand where."""

from typing import Any

import pytest

from libs.common.control.entries import Server
from libs.common.errors import BadRequest
from libs.common.requests import Injection
from services.credentials.domain import Provider
from services.credentials.layout import BEARER, Field, Layout, Placement, encode, layout_of, one_key


def _provider(layout: str, kind: Any = "api_key") -> Provider:
    return Provider(
        slug="wiki",
        kind=kind,
        layout=layout,
        version=1,
        changed_at="2026-11-03",
        changed_by="ada@example.com",
    )


def _layout(*placements: Placement) -> Layout:
    names = sorted(set().union(*(item.fields for item in placements)))
    return Layout(tuple(Field(name) for name in names), placements)


@pytest.mark.parametrize(
    ("placements", "injection"),
    [
        ([Placement("header", "X-Api-Key", "{key}")], Injection(headers={"x-api-key": "K"})),
        ([Placement("query", "api_key", "{key}")], Injection(query={"api_key": "K"})),
        ([Placement("environment", "TOKEN", "{key}")], Injection(environment={"TOKEN": "K"})),
        (
            [Placement("header", "Authorization", "Basic {base64:user:key}")],
            Injection(headers={"authorization": "Basic VTpL"}),
        ),
        (
            [Placement("header", "X-User", "{user}"), Placement("query", "key", "{key}")],
            Injection(headers={"x-user": "U"}, query={"key": "K"}),
        ),
        ([Placement("header", "Cookie", "a={key}; b={key}")], Injection(headers={"cookie": "a=K; b=K"})),
        (
            [Placement("environment", "HEADERS", '{"Authorization": "Bearer {key}"}')],
            Injection(environment={"HEADERS": '{"Authorization": "Bearer K"}'}),
        ),
    ],
)
def test_values_go_where_the_templates_say(placements: list[Placement], injection: Injection) -> None:
    layout = _layout(*placements)
    values = {"key": "K", "user": "U"}
    assert layout.render({name: values[name] for name in layout.names}) == injection


def test_a_value_that_looks_like_a_template_is_not_one() -> None:
    layout = _layout(Placement("header", "X-Keys", "{a} {b}"))
    assert layout.render({"a": "{b}", "b": "{a}"}).headers == {"x-keys": "{b} {a}"}


def test_base64_carries_what_a_header_could_not() -> None:
    layout = _layout(Placement("header", "Authorization", "Basic {base64:user:password}"))
    rendered = layout.render({"user": "ä da", "password": " p\n"}).headers["authorization"]
    assert rendered == "Basic w6QgZGE6IHAK"


@pytest.mark.parametrize(
    ("fields", "placements", "said"),
    [
        ([], [("header", "X-A", "{key}")], "between 1 and 10"),
        (["key"], [], "between 1 and 10"),
        (["key"] * 2, [("header", "X-A", "{key}")], "same name"),
        (["key"], [("header", "X-A", "{key}"), ("header", "x-a", "{key}")], "same place"),
        (["key"], [("header", "X-A", "{kee}")], "a field that there is not: kee"),
        (["key", "user"], [("header", "X-A", "{key}")], "no template names the field user"),
        ([f"f{n}" for n in range(11)], [("header", "X-A", "{key}")], "between 1 and 10"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(fields: list[str], placements: list[Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        Layout(tuple(map(Field, fields)), tuple(Placement(*item) for item in placements))


@pytest.mark.parametrize("name", ["", "Key", "1key", "a-b", "a b", "x" * 41, "schlüssel", "a\n"])
def test_a_name_that_no_template_could_have_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="no name of a field"):
        Field(name)


@pytest.mark.parametrize(
    ("into", "name", "template"),
    [
        ("header", "Host", "{key}"),
        ("header", "X A", "{key}"),
        ("header", "X-A", "{key}\r\nX-B: y"),
        ("header", "X-A", "no field"),
        ("header", "X-A", "{}"),
        ("query", "a&b", "{key}"),
        ("query", "a b", "{key}"),
        ("query", "", "{key}"),
        ("query", "a", "{key}\n"),
        ("environment", "A-B", "{key}"),
        ("environment", "LOCKGATE_X", "{key}"),
        ("environment", "A", "{key}\0"),
        ("header", "X-A", "{key}" + "x" * 200),
    ],
)
def test_a_place_that_is_none_is_refused(into: Any, name: str, template: str) -> None:
    with pytest.raises(BadRequest):
        Placement(into, name, template)


@pytest.mark.parametrize(
    ("into", "value", "fits"),
    [
        ("header", "a b", True),
        ("header", "a\nb", False),
        ("header", "ä", False),
        ("header", " a", False),
        ("query", "ä&= ", True),
        ("query", "a\n", False),
        ("environment", "a\nä", True),
        ("environment", "a\0", False),
        ("environment", "\ud800", False),
        ("query", "", False),
        ("query", "x" * 16385, False),
    ],
)
def test_a_value_fits_where_it_goes_or_is_refused_without_being_repeated(
    into: Any, value: str, fits: bool
) -> None:
    layout = one_key(into, "NAME", "{key}")
    if fits:
        layout.check({"key": value})
        return
    with pytest.raises(BadRequest) as refused:
        layout.check({"key": value})
    assert len(value) < 3 or value not in str(refused.value)


@pytest.mark.parametrize("values", [{}, {"key": "K", "more": "M"}, {"other": "K"}])
def test_values_of_other_fields_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="the fields of this credential are: key"):
        BEARER.render(values)


@pytest.mark.parametrize(
    ("transport", "into", "fits"),
    [
        ("streamable_http", "header", True),
        ("streamable_http", "query", True),
        ("sse", "header", True),
        ("stdio", "environment", True),
        ("streamable_http", "environment", False),
        ("stdio", "header", False),
        ("stdio", "query", False),
    ],
)
def test_a_layout_fits_the_transport_or_says_what_would(transport: Any, into: Any, fits: bool) -> None:
    server = Server(version=1, slug="wiki", name="Wiki", transport=transport)
    layout = one_key(into, "NAME", "{key}")
    if fits:
        layout.check_fits(server)
        return
    with pytest.raises(BadRequest, match=r"name (a header|the environment variable)"):
        layout.check_fits(server)


def test_a_layout_survives_being_kept() -> None:
    layout = Layout(
        (Field("user", "Login", False, "Your mail"), Field("password")),
        (Placement("header", "Authorization", "Basic {base64:user:password}"),),
    )
    assert layout_of(_provider(encode(layout)), "api_key") == layout


def test_what_another_kind_configured_does_not_hold() -> None:
    kept = encode(one_key("header", "X-A", "{key}"))
    assert layout_of(_provider(kept, "oauth"), "api_key") == BEARER
