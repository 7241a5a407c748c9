"""The organization."""

from typing import Self

from libs.common.control.owner import Receipt
from services.policy.domain import Organization
from services.policy.views.base import Switched


class OrganizationView(Switched):
    @classmethod
    def of(cls, organization: Organization, **more: object) -> Self:
        return cls.model_validate(organization.switched() | more)


class OrganizationChanged(OrganizationView):
    receipt: Receipt
