"""Policy's tables, and their rows as values of the domain. The schema itself is what `migrations/` says; a
test compares the two.

servers.py, groups.py (with access and members), organization.py, switches.py, rules.py (with quotas)
              the tables of one word
row.py        what all have in common, and the counter of versions
"""

from services.policy.tables.groups import AccessRow, GroupRow, MemberRow, access_of, grant
from services.policy.tables.organization import OrganizationRow
from services.policy.tables.pins import PinRow
from services.policy.tables.row import Counter, Row
from services.policy.tables.rules import QuotaRow, RuleRow
from services.policy.tables.servers import ServerRow, define, offer, server_of, server_row
from services.policy.tables.switches import SwitchRow, switch_of

__all__ = [
    "AccessRow",
    "Counter",
    "GroupRow",
    "MemberRow",
    "OrganizationRow",
    "PinRow",
    "QuotaRow",
    "Row",
    "RuleRow",
    "ServerRow",
    "SwitchRow",
    "access_of",
    "define",
    "grant",
    "offer",
    "server_of",
    "server_row",
    "switch_of",
]
