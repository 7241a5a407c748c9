"""Becomes another program, tied to the life of the process that started this one.

    python -I -S tether.py PARENT_PID LOCK_FD PROGRAM [ARGUMENT...]

It writes its process id into the lock file that it inherited open and locked, asks the kernel to send SIGTERM
when the parent dies (Linux: prctl(2), PR_SET_PDEATHSIG), and executes PROGRAM, which keeps the process id,
the signal and the lock. So whoever finds the lock taken knows which process to end.

A program of its own, because Python code between fork and exec is unsafe in a process with threads. It
imports nothing but the standard library, and little of that, because it runs at each start.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind to the parent, then execute the program."""
    parent, lock = int(sys.argv[1]), int(sys.argv[2])
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel could be asked
            sys.exit(1)
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 (that is its purpose)


if __name__ == "__main__":
    main()
