"""Which rule fits a resource, and that no other spelling of a URI gets around it."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libs.common.control.entries import Access, ServerAccess
from libs.common.decision.resources import ResourceRules, plain


def allows(uri: str, named: dict[str, Access] | None = None, default: Access = "allow") -> bool:
    return ResourceRules(ServerAccess(default=default, resources=named or {})).allow(uri)


RULES: dict[str, Access] = {
    "file:///docs/*": "deny",
    "file:///docs/public/*": "allow",
    "file:///docs/public/draft": "deny",
    "note://one": "deny",
}
VERDICTS = {
    "file:///elsewhere": True,
    "file:///docs": True,  # the folder itself is not below it
    "file:///docs2": True,
    "file:///docs/a": False,
    "file:///docs/public/a": True,
    "file:///docs/public/draft": False,
    "file:///docs/public/drafts": True,
    "note://one": False,
    "note://one/more": True,
}


@pytest.mark.parametrize("uri", VERDICTS)
def test_the_longest_rule_that_fits_counts(uri: str) -> None:
    assert allows(uri, RULES) is VERDICTS[uri]


def test_what_no_rule_names_is_as_the_default_says() -> None:
    assert allows("x://y") and not allows("x://y", default="deny")
    assert allows("x://y", {"x://*": "allow"}, default="deny")
    assert not allows("z://y", {"x://*": "allow"}, default="deny")


SPELLINGS = [
    "FILE:///secret",
    "file:///%73ecret",
    "file:///secre%2574",
    "file://localhost/secret",
    "file:/secret",
    "file:///x/../secret",
    "file:///./secret",
    "file:////secret",
    "file:///secret/",
    "file:///secret?x=1",
    "file:///secret#part",
    " file:///secret\n",
    "file:///sec\tret",
    "file:\\\\\\secret",
    "file:///SECRET",
    "file:///ｓecret",
    "file:///x%2f..%2fsecret",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_denied_resource_is_denied_in_every_spelling(spelling: str) -> None:
    assert not allows(spelling, {"file:///secret": "deny"})


@pytest.mark.parametrize(
    "spelling",
    [
        "https://x.example:443/a/b",
        "https://u@X.example/a/b",
        "HTTPS:x.example/a/b",
        "https://x.example./a//b",
    ],
)
def test_a_denied_web_address_is_denied_in_every_spelling(spelling: str) -> None:
    assert not allows(spelling, {"https://x.example/a/*": "deny"})


@pytest.mark.parametrize(
    "uri", ["file:///docs/../secret", "file:///docs/%2e%2e/secret", "file:///docs\\..\\x"]
)
def test_nobody_leaves_what_is_allowed_by_dots(uri: str) -> None:
    assert not allows(uri, {"file:///docs/*": "allow"}, default="deny")
    assert allows("file:///docs/a/../b", {"file:///docs/*": "allow"}, default="deny")


def test_an_administrator_who_names_two_spellings_means_them_apart() -> None:
    rules: dict[str, Access] = {
        "file:///A": "allow",
        "file:///a": "deny",
        "file:///b?x": "allow",
        "file:///b": "deny",
    }
    assert allows("file:///A", rules) and not allows("file:///a", rules)
    assert allows("file:///b?x", rules) and not allows("file:///b?y", rules)
    for one in (rules, dict(reversed(rules.items()))):
        assert not allows("FILE:///A", one), "nobody named this one, and it could be either"


characters = st.sampled_from("abö-_ ")
respelled = st.sampled_from([str, str.upper, lambda c: quote(c, safe=""), lambda c: "%" + hexlify(c)])
detours = st.sampled_from(["", "./", "/", "x/../", "%2e/", "x/%2E%2e/", "y\\..\\"])


def hexlify(character: str) -> str:
    return "%".join(f"{octet:02X}" for octet in character.encode())


@given(st.lists(st.tuples(detours, st.lists(st.tuples(characters, respelled), min_size=1)), min_size=1))
def test_spellings_of_one_path_have_one_plain_form(
    path: list[tuple[str, list[tuple[str, Callable[[str], str]]]]],
) -> None:
    written = "/".join("".join(character for character, _ in part) for _, part in path)
    spelled = "/".join(detour + "".join(spell(c) for c, spell in part) for detour, part in path)
    assume(written == written.strip())  # spaces at the ends are not part of a URI
    assert plain(f"x://h/{spelled}") == plain(f"x://h/{written}")


@given(st.text(min_size=1, max_size=12), st.booleans())
def test_a_denied_name_is_denied_whatever_it_is(name: str, begins: bool) -> None:
    uri = f"x://{name}"
    assert not allows(uri, {uri: "deny"})
    if begins:
        assert not allows(uri + "/y", {uri + "/*": "deny"})
