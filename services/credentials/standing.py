"""How the servers stand for one person: which credential their calls go with, and what they should do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from libs.common.control.entries import Server, User
from libs.common.control.tables import Tables
from services.credentials.domain import Account, place

Use: TypeAlias = Literal["own", "organization", ""]


@dataclass(frozen=True, slots=True)
class Standing:
    """A server that needs a credential, for one person. `accounts` are their own, the chosen one first."""

    server: Server
    accounts: tuple[Account, ...]
    organization: Account | None

    @property
    def own(self) -> Account | None:
        """The account that is used before the organization's, if it may be sent to the server."""
        return next((account for account in self.accounts if account.chosen and self.fits(account)), None)

    @property
    def uses(self) -> Use:
        if self.own:
            return "own"
        return "organization" if self.organization and self.fits(self.organization) else ""

    @property
    def used(self) -> Account | None:
        return {"own": self.own, "organization": self.organization, "": None}[self.uses]

    @property
    def attention(self) -> str:
        """Why somebody has to act before calls work, in one sentence; empty if they do."""
        if self.used:
            return self.used.reason if self.used.state == "attention" else ""
        for account in (*self.accounts, self.organization):
            if account and not self.fits(account):
                return misfit(account, self.server)
        return "Nothing is stored for it yet."

    def fits(self, account: Account) -> bool:
        """Whether it may be sent to the server as that is now."""
        return account.kind == self.server.auth and account.entry().is_for(self.server)


def misfit(account: Account, server: Server) -> str:
    """Why `account` may not be sent to `server`, in one sentence."""
    if account.kind != server.auth:
        return "What is stored is of another kind than the server wants now."
    thing = "command" if server.transport == "stdio" else "address"
    return f"It was stored for {place(account.origin)}, and the server has another {thing} now."


def standings(
    servers: Sequence[Server], own: Sequence[Account], organization: Sequence[Account]
) -> list[Standing]:
    """One per server that needs a credential. `own` and `organization` are all accounts of these two."""
    of_all = {account.owner.slug: account for account in organization if account.chosen}
    mine: dict[str, list[Account]] = {}
    for account in own:
        mine.setdefault(account.owner.slug, []).append(account)
    return [
        Standing(
            server,
            tuple(sorted(mine.get(server.slug, []), key=lambda account: not account.chosen)),
            of_all.get(server.slug),
        )
        for server in servers
        if server.auth != "none"
    ]


def usable_servers(tables: Tables, user: User) -> list[Server]:
    """The servers that the group of `user` may use, by slug."""
    group = tables.group_of(user.id)
    names = sorted(group.servers) if group else []
    return [tables.servers[name] for name in names if name in tables.servers]
