"""Explore everything, the large scenarios too: `python -m tests.model [MOST]`, which takes minutes.

MOST bounds the states of one scenario; a state takes about a kilobyte and a half.
"""

import sys
import time

from tests.model.rules import Rules
from tests.model.scenarios import LARGE, SMALL


def main() -> int:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    problems = 0
    for name, scenario in (SMALL | LARGE).items():
        began = time.monotonic()
        found = scenario.explore(Rules(), most)
        seen = "all" if found.finished else "the first"
        print(f"{name}: {seen} {found.states} states, {found.steps} steps, {time.monotonic() - began:.0f} s")
        if found.problem:
            problems += 1
            print("\n  ".join([f"  {found.problem}", *found.path]))
        sys.stdout.flush()
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
