"""Faults are done to the same real processes as in the end-to-end tests."""

from tests.e2e.conftest import fleet, gate, recorder
from tests.unit.conftest import postgres

__all__ = ["fleet", "gate", "postgres", "recorder"]
