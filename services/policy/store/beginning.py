"""What exists from the first start on."""

from sqlmodel import Session

from libs.common.control.entries import DEFAULT_GROUP, ServerAccess
from services.policy.definition import Definition, is_loopback
from services.policy.store.groups import set_access
from services.policy.store.organization import ONLY
from services.policy.tables import GroupRow, OrganizationRow, ServerRow, server_row

DEMO = "demo"


def begin(session: Session, version: int, demo_url: str | None) -> bool:
    """As `PolicyStore.initialize`."""
    if session.get(GroupRow, DEFAULT_GROUP) is None:
        session.add(OrganizationRow(id=ONLY, version=version))
        session.add(GroupRow(id=DEFAULT_GROUP, name="Everyone", version=version))
        session.flush()
        if demo_url:
            session.add(server_row(DEMO, Definition(name="Demo", url=demo_url), version))
            set_access(session, DEFAULT_GROUP, DEMO, ServerAccess())
    elif demo_url:
        demo = session.get(ServerRow, DEMO)
        if demo and demo.url != demo_url and is_loopback(demo.url):
            demo.url, demo.version = demo_url, version
            return True
    demo = session.get(ServerRow, DEMO) if demo_url else None
    return demo is not None and demo.url == demo_url and not demo.tools
