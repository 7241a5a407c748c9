"""Switches of all levels."""

from typing import Self

from pydantic import BaseModel

from libs.common.control.entries import Off
from libs.common.control.owner import Receipt
from services.policy import switches
from services.policy.switches import Level, Switch
from services.policy.views.base import Body, Moment, Versioned


class OffBody(Body):
    """`reason` is shown to those whose calls are refused; at `until`, if it is given, it comes on again by
    itself."""

    reason: str = ""
    until: Moment | None = None

    def off(self) -> Off:
        """What is kept of it. Raises `BadRequest`."""
        return switches.off(self.reason, self.until)


class SwitchBody(OffBody):
    """On, or off as in `OffBody`."""

    enabled: bool

    def wanted(self) -> Off | None:
        """What is kept of it; nothing for one that is on. Raises `BadRequest`."""
        return None if self.enabled else self.off()


class SwitchView(Versioned):
    """Something that is off. `subject` is empty for the organization, `<slug>/<tool>` for a tool, a client id
    for a client, and else the id of what the level says. `until` is empty for one without end."""

    level: Level
    subject: str
    reason: str
    until: str
    since: str
    changed_by: str

    @classmethod
    def of(cls, switch: Switch, **more: object) -> Self:
        values: dict[str, object] = {"version": switch.version, "changed_by": switch.changed_by}
        return cls.model_validate(values | switch.record() | more)


class SwitchChanged(SwitchView):
    receipt: Receipt


class SwitchPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[SwitchView]
    next: str | None
