"""People as the pages find and name them; who there is, auth says in the control log."""

from collections.abc import Iterable, Mapping

from libs.common.control.entries import User
from libs.common.control.tables import Tables
from services.policy.domain import UnknownUser

SHOWN = 20  # of those who are found


def find_user(tables: Tables, text: str) -> User:
    """The user with that id or e-mail address. Raises `UnknownUser`."""
    wanted = text.strip()
    if user := tables.users.get(wanted):
        return user
    folded = wanted.casefold()
    for user in tables.users.values():
        if folded and user.email.casefold() == folded:
            return user
    raise UnknownUser(f"Nobody has the e-mail address or id {wanted[:80]!r}.")


def matching(users: Iterable[User], words: str) -> list[User]:
    """Those with all of `words` in their name and address; all of them for no words."""
    wanted = words.casefold().split()
    if not wanted:
        return list(users)
    return [user for user in users if _fits(f"{user.name} {user.email}".casefold(), wanted)]


def _fits(text: str, wanted: list[str]) -> bool:
    return all(word in text for word in wanted)


def names(users: Mapping[str, User], ids: Iterable[str]) -> dict[str, str]:
    """What to call these on a page: by e-mail address, as far as they are there."""
    return {id: users[id].email if id in users else id for id in ids}
