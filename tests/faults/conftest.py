"""Faults are done to the same real processes as in the end-to-end tests."""

from tests.e2e.conftest import fleet, gate, recorder

__all__ = ["fleet", "gate", "recorder"]
