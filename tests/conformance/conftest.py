"""The suite runs against real processes: the upstream alone, and two replicas before it."""

from tests.e2e.conftest import balanced, everything, front, gate
from tests.npm import packages

__all__ = ["balanced", "everything", "front", "gate", "packages"]
