"""What is approved of tools and what waits, by what was seen; and how two definitions are told apart."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.decision.pins import canonical, digest
from libs.common.definitions import Definition as ToolDefinition
from libs.common.errors import BadRequest
from services.policy import pins
from services.policy.definition import Definition
from services.policy.differences import MOST, differences, readable
from services.policy.domain import Server
from services.policy.features import Feature, Features
from services.policy.pins import NotOffered, Pin, Sight
from services.policy.sights import after

ALLOW = Definition(name="D", url="https://u.example/mcp")
REVIEW = Definition(name="D", url="https://u.example/mcp", new_tools="review")
OFF = Definition(name="D", url="https://u.example/mcp", pinning="off")


def server(definition: Definition = ALLOW, known: tuple[str, ...] = (), **present: Pin) -> Server:
    return pinned(present, definition, known)


def pinned(present: Mapping[str, Pin], definition: Definition = ALLOW, known: tuple[str, ...] = ()) -> Server:
    features = Features(tools=tuple(Feature(name) for name in known))
    return Server(slug="demo", definition=definition, features=features, pins=present, version=1)


def sight(*seen: tuple[str, str], version: int = 10, adopt: bool = False) -> Sight:
    definitions = [ToolDefinition(name=name, digest=digest) for name, digest in seen]
    return Sight(definitions=definitions, version=version, adopt=adopt)


def changed(present: Server, seen: Sight) -> dict[str, Pin]:
    return after(present, seen, None, "now")[1]


# -- what is seen first ----------------------------------------------------------------------------


CASES = [
    (ALLOW, False, "add", Pin("d")),
    (REVIEW, False, "add", Pin(offered="d", since="now")),
    (REVIEW, True, "add", Pin("d")),
    (OFF, False, "add", Pin("d")),
    (ALLOW, False, "\u0430dd", Pin(offered="d", since="now")),
    (ALLOW, False, "ADD", Pin(offered="d", since="now")),
    (ALLOW, True, "\u0430dd", Pin("d")),
]


@pytest.mark.parametrize(("definition", "adopt", "name", "pin"), CASES)
def test_a_new_tool_follows_the_servers_setting_unless_its_name_could_deceive(
    definition: Definition, adopt: bool, name: str, pin: Pin
) -> None:
    known = ("add",) if name == "ADD" else ()
    assert changed(server(definition, known), sight((name, "d"), adopt=adopt)) == {name: pin}


def test_the_first_definition_of_a_tool_whose_name_is_known_is_approved() -> None:
    assert changed(server(REVIEW, ("add",)), sight(("add", "d"))) == {"add": Pin("d")}


def test_two_definitions_of_one_name_hold_it_even_at_first_sight() -> None:
    assert changed(server(), sight(("add", "d"), ("add", "e"))) == {"add": Pin("d", "e", "now")}


@pytest.mark.parametrize("name", ["", "a" * 257, "add\u200b", "a\nb"])
def test_what_cannot_be_named_is_not_taken(name: str) -> None:
    assert changed(server(), sight((name, "d"), adopt=True)) == {}


# -- what is seen later ----------------------------------------------------------------------------


def test_another_definition_waits_and_the_approved_one_stays_approved() -> None:
    pin = changed(server(add=Pin("d")), sight(("add", "e")))["add"]
    assert (pin, pin.held) == (Pin("d", "e", "now"), "changed")


def test_it_waits_even_if_the_server_changes_back() -> None:
    waiting = Pin("d", "e", "then")
    assert changed(server(add=waiting), sight(("add", "d"), ("add", "e"))) == {}


def test_a_third_definition_takes_the_place_of_the_one_that_waits_and_of_its_rejection() -> None:
    waiting = Pin("d", "e", "then", rejected=True, version=3)
    assert changed(server(add=waiting), sight(("add", "f"))) == {"add": Pin("d", "f", "now", version=3)}


def test_what_was_seen_before_somebody_decided_does_not_count() -> None:
    decided = Pin("e", version=20)
    assert changed(server(add=decided), sight(("add", "d"), version=19)) == {}
    assert changed(server(add=decided), sight(("add", "d"), version=20))["add"].held == "changed"


def test_with_pins_off_the_present_definition_is_the_approved_one() -> None:
    assert changed(server(OFF, add=Pin("d", "e", "then", version=3)), sight(("add", "f"), version=1)) == {
        "add": Pin("f", version=3)
    }


def test_a_tool_that_went_away_has_to_come_back_as_it_was() -> None:
    without, gone = after(server(known=("add",), add=Pin("d")), sight(), Features(), "now")
    assert (without, gone) == (Features(), {})
    back = Server(slug="demo", definition=ALLOW, features=without, pins={"add": Pin("d")}, version=2)
    assert changed(back, sight(("add", "e")))["add"].held == "changed"


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from("xyz")), max_size=12))
def test_no_list_of_a_server_ever_changes_what_is_approved(lists: list[tuple[str, str]]) -> None:
    present: dict[str, Pin] = {"a": Pin("x")}
    first: dict[str, str] = {"a": "x"}
    for name, shown in lists:
        present |= changed(pinned(present), sight((name, shown)))
        first.setdefault(name, shown)
        assert present[name].digest == first[name]
        assert shown == first[name] or present[name].held


# -- decisions -------------------------------------------------------------------------------------


def test_either_definition_can_be_approved_and_no_other() -> None:
    waiting = Pin("d", "e", "then", rejected=True)
    assert waiting.approved("e", 7) == Pin("e", version=7)
    assert waiting.approved("d", 7) == Pin("d", version=7)
    assert Pin("d", version=3).approved("d", 7) == Pin("d", version=3), "it is approved already"
    for other in ("f", ""):
        with pytest.raises(NotOffered):
            waiting.approved(other, 7)
        with pytest.raises(NotOffered):
            Pin(offered="e").approved(other, 7)


def test_only_what_waits_can_be_rejected_and_stays_held() -> None:
    rejected = Pin("d", "e", "then").refused("e", 7)
    assert (rejected.rejected, rejected.held, rejected.version) == (True, "changed", 7)
    assert rejected.refused("e", 9) == rejected
    for digest_ in ("d", ""):
        with pytest.raises(NotOffered):
            Pin("d").refused(digest_, 7)


# -- what the control log says ---------------------------------------------------------------------


def test_the_log_pins_what_is_approved_and_holds_what_waits() -> None:
    entry = server(
        known=("named", "new"),
        same=Pin("d"),
        changed=Pin("d", "e", "then"),
        new=Pin(offered="e", since="then"),
    ).entry()
    assert entry.tools == {"named": "", "same": "d", "changed": "d"}
    assert entry.quarantined == {"changed": "changed", "new": "new"}
    assert (entry.new_tools, entry.pinning) == ("allow", "enforce")


def test_a_server_with_more_tools_than_pins_are_kept_of_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pins, "MOST", 3)
    found = changed(server(add=Pin("d")), sight(*((f"t{n}", "d") for n in range(5))))
    assert list(found) == ["t0", "t1"]
    full = pinned({"add": Pin("d"), **found})
    assert full.entry().new_tools == "review"
    assert changed(full, sight(("add", "e"), ("t4", "d"))) == {"add": Pin("d", "e", "now")}
    offered = after(full, sight(("t4", "d")), Features(tools=(Feature("add"), Feature("t4"))), "now")[0]
    assert offered == Features(tools=(Feature("add"),)), "what is not pinned is not known either"


def test_the_names_of_all_tools_fit_into_an_entry() -> None:
    names = [f"{number:04}" + "\U00020000" * 250 for number in range(2000)]
    found = changed(server(), sight(*((name, "d" * 43) for name in names), adopt=True))
    full = {name: Pin("d" * 43, "e" * 43, "now") for name in found}
    assert 200 < len(full) < 2000
    assert len(json.dumps(list(pinned(full).entry().tools)).encode()) < 1_000_000


def test_tools_seen_for_the_first_time_are_listed_with_their_descriptions() -> None:
    text = canonical({"name": "add", "description": "Adds.\nAt length."})
    seen = Sight(definitions=[ToolDefinition(name="add", digest=digest(text), text=text)], version=1)
    features, _ = after(server(known=("old",)), seen, None, "now")
    assert features.tools == (Feature("old"), Feature("add", "Adds."))


def test_new_tools_cannot_be_reviewed_where_pins_are_off() -> None:
    with pytest.raises(BadRequest, match="pinning"):
        Definition(name="D", url="https://u.example/mcp", new_tools="review", pinning="off")


# -- differences -----------------------------------------------------------------------------------

TOOL: dict[str, Any] = {
    "name": "mail",
    "description": "Sends a mail. Only to colleagues.",
    "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}, "n": {"maximum": 2**70}}},
}


def differ(**changes: Any) -> dict[str, tuple[str | None, str | None, list[str]]]:
    found = differences(canonical(TOOL), canonical(TOOL | changes))
    return {each.path: (each.before, each.after, each.lines) for each in found}


def test_nothing_differs_between_a_definition_and_itself() -> None:
    assert differ() == {}


def test_a_text_is_compared_sentence_by_sentence() -> None:
    (found,) = differ(description="Sends a mail. To anybody. Only to colleagues.").values()
    assert found[2] == ["  Sends a mail.", "+ To anybody.", "  Only to colleagues."]


def test_what_came_and_what_went_is_named_by_its_place() -> None:
    schema = {"type": "object", "properties": {"n": {"maximum": 2**70 + 1}, "b/c": {"enum": [True, 1, "1"]}}}
    assert differ(inputSchema=schema) == {
        "/inputSchema/properties/n/maximum": (str(2**70), str(2**70 + 1), []),
        "/inputSchema/properties/to/type": ("string", None, ["- string", "+ "]),
        "/inputSchema/properties/b~1c/enum/0": (None, "true", []),
        "/inputSchema/properties/b~1c/enum/1": (None, "1", []),
        "/inputSchema/properties/b~1c/enum/2": (None, "1", ["- ", "+ 1"]),
    }


@pytest.mark.parametrize(("before", "changed_to"), [(True, 1), (1, 1.5), ("1", 1), ([], {}), (None, "x")])
def test_values_of_other_kinds_differ(before: Any, changed_to: Any) -> None:
    old, new = (canonical({"name": "x", "annotations": {"a": value}}) for value in (before, changed_to))
    (found,) = differences(old, new)
    assert found.path == "/annotations/a" and found.before != found.after


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("Sends\u200b a mail.", "Sends\\u200b a mail."),
        ("\u202eSends", "\\u202eSends"),
        ("Sends\u00a0it", "Sends\\u00a0it"),
        ("tag \U000e0041", "tag \\udb40\\udc41"),
        ("a\u3164b\ufe01", "a\\u3164b\\ufe01"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("Schreibt für Ärzte 日本", "Schreibt für Ärzte 日本"),
    ],
)
def test_what_cannot_be_seen_is_written_out_and_other_languages_are_not(hidden: str, seen: str) -> None:
    (found,) = differ(description=hidden).values()
    assert found[1] == seen
    written = readable(canonical({"name": "x", "description": hidden}))
    assert seen in written and json.loads(written)["description"] == hidden


def test_an_escape_is_told_from_the_character_that_it_stands_for() -> None:
    ((_, after, _),) = differ(description="a\\u200bb").values()
    assert after == "a\\\\u200bb"
    ((_, character, _),) = differ(description="a\u200bb").values()
    assert character == "a\\u200bb"


def test_a_property_whose_name_looks_like_another_is_told_apart() -> None:
    schema = {"properties": {"\u0430": {"type": "string"}}}
    assert "/inputSchema/properties/\\u0430/type" in differ(inputSchema=schema)


def test_a_hostile_definition_is_shown_in_bounded_time_and_length() -> None:
    many = {"name": "x", "inputSchema": {f"p{n}": n for n in range(20_000)}}
    deep: dict[str, Any] = {}
    for _ in range(128):
        deep = {"a": deep}
    lines = {"name": "x", "description": "a.\n" * 60_000}
    old = canonical(TOOL)
    assert len(differences(old, canonical(many))) == MOST
    assert differences(old, canonical({"name": "x", "inputSchema": deep}))
    assert readable(canonical({"name": "x", "inputSchema": deep}))
    assert differences(old, canonical(lines))[0].lines == []
