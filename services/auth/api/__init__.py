"""The HTTP API, `/api/auth`.

people.py        users, invitations, password resets
connections.py   what acts for a user: connected clients, logins
clients.py       clients of the organization's own services
"""

from fastapi import APIRouter

from services.auth.api import clients, connections, people

router = APIRouter(prefix="/api/auth")
for part in (people, connections, clients):
    router.include_router(part.router)
