"""Faults are done to the same real processes as in the end-to-end tests."""

from tests.e2e.conftest import fleet, gate, recorder
from tests.providers.running import provider, provider_processes
from tests.unit.conftest import control, postgres, sign_in, signer

__all__ = [
    "control",
    "fleet",
    "gate",
    "postgres",
    "provider",
    "provider_processes",
    "recorder",
    "sign_in",
    "signer",
]
