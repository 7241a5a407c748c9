"""JSON under `/api/policy`, for administrators: one module for each resource.

Every change answers with its receipt: 200 when it holds on every replica, 202 while something is pending.
"""

from fastapi import APIRouter

from services.policy.api import (
    access,
    decisions,
    groups,
    members,
    organization,
    quotas,
    rules,
    servers,
    switches,
    tools,
)

router = APIRouter(prefix="/api/policy", tags=["policy"])
for resource in (servers, tools, groups, members, switches, organization, rules, quotas, decisions, access):
    router.include_router(resource.router)
