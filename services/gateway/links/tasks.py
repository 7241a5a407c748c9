"""Whose a task is, where several people share a process, which knows one client and cannot tell (pure).

Of 2025-11-25 (basic/utilities/tasks) and of the tasks extension of 2026-07-28.
"""

from services.gateway import messages
from services.gateway.links import renaming

MOST = 100_000  # tasks whose owners are known
NAMING = {f"tasks/{verb}" for verb in ("get", "result", "update", "cancel")}  # by `params.taskId`


def task_of(result: bytes) -> str:
    """The id of the task that a result (raw JSON) announces; empty if it is none of that. Raises
    `NotAMessage`."""
    parts = messages.members(result)
    if messages.text(parts.get("resultType")) == "task" and "taskId" in parts:
        return messages.text(parts["taskId"])
    return renaming.text(bytes(parts.get("task", b"")), "taskId")


class Owners:
    """Of the tasks of one process, by the requests that created them."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}  # task id -> user, oldest first
        self._users: set[str] = set()

    @property
    def users(self) -> int:
        """How many people have ever used the process."""
        return len(self._users)

    def join(self, user: str) -> None:
        self._users.add(user)

    def keep(self, task: str, user: str) -> None:
        self._owners.setdefault(task, user)
        if len(self._owners) > MOST:
            del self._owners[next(iter(self._owners))]

    def may_name(self, request: messages.Message, user: str) -> bool:
        """Whether what `request` asks is for `user` to ask. A task that nobody is known to have created was
        there before the process, and is anybody's as long as there is only one person."""
        if request.method not in NAMING:
            return True
        task = renaming.text(request.params, "taskId")
        return self._owners[task] == user if task in self._owners else self.users == 1
