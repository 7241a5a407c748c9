"""Bounds on what callers can cause that have not proven who they are."""

import pytest
from structlog.testing import capture_logs

from libs.common import throttle
from libs.common.throttle import EventBudget, source_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_key_has_its_budget_in_each_window(clock: Clock) -> None:
    budget = EventBudget(2, 60, clock=clock)
    assert [budget.spend("x") for _ in range(4)] == [True, True, False, False]
    assert budget.spend("y")
    clock.now += 59
    assert not budget.spend("x")
    clock.now += 1
    assert [budget.spend("x") for _ in range(3)] == [True, True, False]


def test_all_keys_together_have_a_budget_too(clock: Clock) -> None:
    budget = EventBudget(2, 60, total=3, clock=clock)
    assert sum(budget.spend(f"key {number}") for number in range(100)) == 3
    clock.now += 60
    assert budget.spend("key 1")


def test_what_a_key_has_beyond_its_budget_does_not_use_up_that_of_all(clock: Clock) -> None:
    budget = EventBudget(2, 60, total=3, clock=clock)
    for _ in range(100):
        budget.spend("x")
    assert budget.spend("y")


def test_what_was_not_recorded_is_counted(clock: Clock) -> None:
    budget = EventBudget(1, 60, name="auth_events", clock=clock)
    with capture_logs() as logs:
        for _ in range(5):
            budget.spend("x")
        assert [entry["event"] for entry in logs] == ["events_no_longer_recorded"]
        clock.now += 60
        budget.spend("x")
    assert [(entry["event"], entry.get("count")) for entry in logs[1:]] == [("events_not_recorded", 4)]


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "KEYS", 10)
    budget = EventBudget(1, 60, total=10_000, clock=clock)
    for number in range(1000):
        assert budget.spend(f"key {number}")
    assert len(budget._windows) == 10
    assert not budget.spend("key 999")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_limits_count_by_what_one_machine_has(address: str, source: str) -> None:
    assert source_of(address) == source
