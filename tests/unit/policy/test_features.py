"""What is ticked becomes what a group may use."""

from typing import Any

import pytest

from libs.common.control.entries import Access, ServerAccess
from libs.common.errors import BadRequest
from services.policy.features import (
    DESCRIPTION_LENGTH,
    FEATURES_PER_KIND,
    Choice,
    Feature,
    Features,
    Kind,
    beginning_of,
    check_names,
    chosen,
    told,
    verdict,
)


@pytest.mark.parametrize(
    ("default", "tools"),
    [("allow", {"write": "deny"}), ("deny", {"read": "allow"})],
)
def test_of_tools_only_the_exceptions_are_named(default: Access, tools: dict[str, Access]) -> None:
    choice = Choice(known=["read", "write"], ticked=["read"])
    assert chosen(default, {"tools": choice}) == ServerAccess(default=default, tools=tools)


def test_the_kinds_do_not_mix() -> None:
    choices: dict[Kind, Choice] = {"tools": Choice(["x"], ["x"]), "prompts": Choice(["x"], [])}
    assert chosen("allow", choices) == ServerAccess(prompts={"x": "deny"})
    assert chosen("deny", choices) == ServerAccess(default="deny", tools={"x": "allow"})


def test_where_one_resource_is_an_exception_each_is_named_so_that_no_other_spelling_of_it_counts() -> None:
    choice = Choice(known=["crm://a", "crm://A", "crm://b/*"], ticked=["crm://A", "crm://b/*"])
    resources: dict[str, Access] = {"crm://a": "deny", "crm://A": "allow", "crm://b/*": "allow"}
    assert chosen("allow", {"resources": choice}).resources == resources
    assert chosen("deny", {"resources": choice}).resources == resources


def test_without_an_exception_no_resource_is_named() -> None:
    assert chosen("allow", {"resources": Choice(["crm://a"], ["crm://a"])}) == ServerAccess()


def test_what_the_form_did_not_show_keeps_its_verdict() -> None:
    present = ServerAccess(default="deny", tools={"hidden": "allow", "read": "allow"})
    access = chosen("deny", {"tools": Choice(["read"], [])}, present)
    assert access == ServerAccess(default="deny", tools={"hidden": "allow"})


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("crm://a/1", "allow"),
        ("crm://a/2", "deny"),
        ("crm://a/open/2", "allow"),
        ("crm://a/open/shut", "deny"),
        ("crm://b", "allow"),
    ],
)
def test_of_the_beginnings_that_fit_a_resource_the_longest_counts(uri: str, says: Access) -> None:
    access = ServerAccess(
        resources={
            "crm://a/*": "deny",
            "crm://a/1": "allow",
            "crm://a/open/*": "allow",
            "crm://a/open/shut": "deny",
        }
    )
    assert verdict(access, "resources", uri) == says


def test_a_star_means_nothing_in_the_name_of_a_tool() -> None:
    assert verdict(ServerAccess(tools={"read*": "deny"}), "tools", "read_page") == "allow"


@pytest.mark.parametrize(
    ("template", "beginning"),
    [
        ("crm://customers/{id}", "crm://customers/*"),
        ("{+path}", "*"),
        ("crm://customers{?page,size}", "crm://customers*"),
        ("crm://fixed", "crm://fixed"),
    ],
)
def test_a_uri_template_is_named_by_its_beginning(template: str, beginning: str) -> None:
    assert beginning_of(template) == beginning


def test_what_a_server_tells_is_kept_within_limits() -> None:
    said: Any = [("x" * 257, ""), ("", ""), ("a\nb", ""), ("read", None), ("read", "again")]
    assert told("tools", said) == (Feature("read"),)
    assert told("prompts", [("ask", "First.\nSecond.")]) == (Feature("ask", "First."),)
    assert len(told("tools", [("x", "y" * 999)])[0].description) == DESCRIPTION_LENGTH
    assert len(told("resources", [(f"a:{n}", "") for n in range(3000)])) == FEATURES_PER_KIND
    assert told("resources", [("x:" + "y" * 1998, "")])


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("tools", "", "the name of a tool"),
        ("prompts", "x" * 257, "the name of a prompt"),
        ("resources", "x" * 2001, "the URI of a resource"),
        ("resources", "a\tb", "the URI of a resource"),
    ],
)
def test_a_name_that_is_none_is_refused(kind: Kind, name: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        check_names(kind, [name])


def test_naming_keeps_descriptions_and_the_kinds_that_are_not_named() -> None:
    present = Features((Feature("read", "Reads."),), (Feature("ask"),))
    named = present.renamed({"tools": ["write", "read", "write"]})
    assert named == Features((Feature("write"), Feature("read", "Reads.")), (Feature("ask"),))
