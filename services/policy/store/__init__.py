"""Every query of the policy service. Synchronous: call it from a thread. Writes return what the change was.

servers.py, pins.py, groups.py, members.py, organization.py, switches.py, rules.py (with quotas)
              one class per word
document.py   groups, members, rules and quotas as a whole
entries.py    what the control log should say
beginning.py  what always exists, and the demo server
database.py   transactions, and the versions that they give out
"""

from collections.abc import Collection

from sqlalchemy import Engine

from libs.common.control.entries import AnyEntry
from services.policy.store import beginning, entries
from services.policy.store.database import Database
from services.policy.store.document import Documents
from services.policy.store.groups import Groups
from services.policy.store.members import Members
from services.policy.store.organization import Organizations
from services.policy.store.pins import Pins
from services.policy.store.rules import Quotas, Rules
from services.policy.store.servers import Servers
from services.policy.store.switches import Switches

KINDS = tuple(entries.KINDS)
DEMO = beginning.DEMO


class PolicyStore:
    """All of it, over the database of `engine`."""

    def __init__(self, engine: Engine) -> None:
        self.database = Database(engine)
        self.organization = Organizations(self.database)
        self.servers = Servers(self.database)
        self.pins = Pins(self.database)
        self.groups = Groups(self.database)
        self.members = Members(self.database)
        self.switches = Switches(self.database)
        self.documents = Documents(self.database)
        self.rules = Rules(self.database)
        self.quotas = Quotas(self.database)

    def initialize(self, demo_url: str | None) -> bool:
        """Create what always exists, and with it, once, the demo server; later keep the demo's port right.

        Returns whether the demo server should be asked what it offers: it is new, has moved, or never told.
        """
        with self.database.write() as (session, version):
            return beginning.begin(session, version, demo_url)

    def entries(self, keys: Collection[str] | None) -> dict[str, AnyEntry]:
        """The entries that `keys` should have in the control log; `None` asks for all of them."""
        with self.database.read() as session:
            return entries.all_entries(session) if keys is None else entries.named(session, keys)
