"""The protocol of lease and receipt, explored state by state (docs/lease.md)."""

from functools import cache

import pytest

from tests.model.explore import Exploration
from tests.model.mutations import MUTATIONS
from tests.model.rules import Rules
from tests.model.scenarios import LARGE, SMALL

MOST = 60_000  # states


@cache
def explored(name: str) -> Exploration:
    return SMALL[name].explore(Rules(), MOST)


@pytest.mark.parametrize("name", SMALL)
def test_no_replica_decides_by_what_a_complete_receipt_has_replaced_and_every_commit_can_be_completed(
    name: str,
) -> None:
    found = explored(name)
    assert not found.problem, "\n".join([found.problem, *found.path])
    assert found.finished, f"more than {MOST} states"


def test_what_the_scenarios_are_about_happens_in_them() -> None:
    assert set().union(*(explored(name).happened for name in SMALL)) >= {
        "killed",
        "owner crashes",
        "NATS restarts",
        "message lost",
        "message repeated",
        "messages swapped",
        "late heartbeat stands",
        "late write arrives",
        "gives up waiting",
        "heartbeat unseen",
        "hears where the log ends",
        "reconciles",
    }


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_model_notices_when(name: str) -> None:
    rules, scenario = MUTATIONS[name]
    found = (SMALL | LARGE)[scenario].explore(rules, MOST)
    assert found.problem, f"not in {found.states} states"
