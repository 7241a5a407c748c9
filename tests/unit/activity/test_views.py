"""How values look on the pages."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.clock import iso
from services.activity.views import ago, cut, exact, indented, latency, size, tone, verdict

NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "just now"),
        (0.4, "just now"),
        (42, "42 s ago"),
        (61, "1 min ago"),
        (3599, "59 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 d ago"),
        (8 * 86_400, "2026-10-26"),
    ],
)
def test_ago(seconds: float, text: str) -> None:
    assert ago(iso(NOW - timedelta(seconds=seconds)), NOW) == text


def test_exact_is_to_the_millisecond() -> None:
    assert exact("2026-11-03T10:00:00.123456Z") == "2026-11-03 10:00:00.123 UTC"


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0, "–"), (640, "0.64 ms"), (12_300, "12 ms"), (999_000, "999 ms"), (1_234_000, "1.23 s")],
)
def test_latency(microseconds: int, text: str) -> None:
    assert latency(microseconds) == text


@pytest.mark.parametrize(("octets", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 1024 * 1024, "3.0 MiB")])
def test_size(octets: int, text: str) -> None:
    assert size(octets) == text


def test_bad_outcomes_look_bad() -> None:
    assert {status: tone(status) for status in ("ok", "error", "failed", "denied", "cancelled")} == {
        "ok": "good",
        "error": "bad",
        "failed": "bad",
        "denied": "warn",
        "cancelled": "",
    }


@pytest.mark.parametrize(
    ("status", "revision", "said"),
    [("denied", 7, "refused"), ("denied", 0, "refused"), ("error", 7, "allowed"), ("cancelled", 0, "")],
)
def test_verdict(status: str, revision: int, said: str) -> None:
    assert verdict(status, revision) == said


VALUES = [
    {"a": [1, 2, {"b": None}], "c": 'x, {y}: \\ " [z]', "empty": {}, "none": [], "ü": "\n"},
    [],
    [[], {}],
    {"n": 12345678901234567890123},
]


@pytest.mark.parametrize("value", VALUES)
def test_indented_is_what_json_would_write(value: object) -> None:
    assert indented(json.dumps(value, ensure_ascii=False)) == json.dumps(value, indent=2, ensure_ascii=False)


def test_indented_keeps_tokens_as_they_were_written() -> None:
    assert indented('{"n":1.10e400,"d":1,"d":2}') == '{\n  "n": 1.10e400,\n  "d": 1,\n  "d": 2\n}'


def test_indented_takes_what_was_cut_off() -> None:
    assert indented('{"a":{"b":"half of a str') == '{\n  "a": {\n    "b": "half of a str'


def test_what_is_not_an_object_or_array_stays_as_it_is() -> None:
    assert indented("plain  text") == "plain  text"


@pytest.mark.parametrize(
    ("text", "shown"), [("", ""), ("abc", "abc"), ("abcd", "abcd"), ("abcde", "abc…"), ("äöüßx" * 9, "äöü…")]
)
def test_cut_leaves_what_fits_and_marks_what_does_not(text: str, shown: str) -> None:
    assert cut(text, 4) == shown
