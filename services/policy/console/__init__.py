"""The pages of policy: plain HTML forms; a change is answered by a redirect to a page with its receipt.

servers.py, tools.py, switches.py                             below /servers
groups.py, members.py, rules.py, quotas.py, explain.py        below /groups
forms.py, choices.py, people.py, texts.py                     what they share
"""

from fastapi import APIRouter

from services.policy.console import explain, groups, members, quotas, rules, servers, switches, tools

router = APIRouter(include_in_schema=False)
# Those with a page of their own beside the page of each server or group come first: a path goes to the first
# route that it fits (names.py keeps servers and groups from being called so).
for pages in (switches, servers, tools, rules, quotas, explain, groups, members):
    router.include_router(pages.router)
