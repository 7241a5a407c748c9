"""Nothing that an administrator was told is off reaches an upstream, whatever goes wrong meanwhile.

A few rounds on every run of the tests; `make faults` runs hundreds:

    ROUNDS=300 SEED=7 pytest -s tests/faults/test_switches.py

What is checked is the upstream's own record: a call that was sent after the 200 must not be in it, until the
moment at which somebody asked to switch on again. A change that got no 200 takes effect later all the same.
"""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Nats
from tests.faults.disturbances import DISTURBANCES
from tests.faults.fleet import running_fleet
from tests.faults.levels import LEVELS
from tests.faults.rounds import Rounds

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SEED = int(os.environ.get("SEED", "2026"))
ADMINISTRATOR_RETURNS_AFTER = 50  # rounds; their token is good for an hour


def pairs(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Levels and disturbances without end, each about as often as the others."""
    while True:
        yield from zip(
            chance.sample(list(LEVELS), len(DISTURBANCES)),
            chance.sample(list(DISTURBANCES), len(DISTURBANCES)),
            strict=True,
        )


@pytest.mark.timeout(60 + 60 * ROUNDS)
async def test_what_was_switched_off_reaches_no_upstream_whatever_goes_wrong(
    nats: Nats, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    async with running_fleet(nats, tmp_path) as fleet:
        rounds = Rounds(fleet, chance)
        for number, (level, disturbance) in enumerate(itertools.islice(pairs(chance), ROUNDS), 1):
            if number % ADMINISTRATOR_RETURNS_AFTER == 0:
                await fleet.sign_in_administrator()
            print(f"{number}: {await rounds.run(level, disturbance)}", flush=True)
            assert not rounds.ledger.broken(fleet.load.calls, fleet.upstream)
        print(f"\nSEED={SEED}\n{rounds.report()}", flush=True)
        assert fleet.load.outcomes["done"] > fleet.load.outcomes["failed"], "the load was real"
