"""The data directory: one owner at a time, readable by nobody else, and the secrets generated into it."""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

LOCK = "lock"


class DataDirectoryError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class InUse(DataDirectoryError):
    """Another process owns the directory."""

    def __init__(self, path: Path, pid: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path} is in use by {who}. Stop it first, or choose another directory with --data."
        )


class DataDirectory:
    """`path`, created if missing (mode 0700) and locked until `close`. Raises `DataDirectoryError`.

    The lock is the kernel's (flock), so that it ends with the process that holds it, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self._prepare()
            self._lock = lock_file(self.path / LOCK)
        except BlockingIOError:
            raise InUse(self.path, holder(self.path / LOCK)) from None
        except OSError as error:
            raise DataDirectoryError(f"{self.path} cannot be used: {error.strerror}.") from error
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the directory up."""
        os.close(self._lock)

    def _prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = (self.path / LOCK).exists() or not any(self.path.iterdir())
        if not ours:
            raise DataDirectoryError(
                f"{self.path} is not empty and not a data directory of Lockgate. Choose another with --data."
            )
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            self.path.chmod(0o700)

    def remembered(self, name: str, make: Callable[[], str]) -> str:
        """The content of file `name`; at the first start it is what `make()` returns."""
        path = self.path / name
        if not path.exists():
            write_private(path, make())
        return path.read_text()


def lock_file(path: Path) -> int:
    """An open descriptor of `path` with its exclusive lock. Raises `BlockingIOError` if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holder(path: Path) -> str:
    """The process id that the holder of the lock file wrote into it; empty if it has not yet."""
    content = path.read_text().strip()
    return content if content.isdigit() else ""


def write_private(path: Path, content: str) -> None:
    """Write a file of mode 0600 so that a crash leaves the old content or the new, never half of it."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
