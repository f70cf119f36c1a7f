"""Becomes another program that gives way to sessions and dies with the process that started it.

Run as a script: `python -I -S launcher.py PARENT PROGRAM [ARGUMENT…]`. Standard library only, so that it starts at
once. A function run between fork and exec would do the same, but is not safe beside threads.
"""

import ctypes
import os
import platform
import signal
import sys

# A quarter of a core that a session wants whole: who waits for an image is a user, too.
NICENESS = 5
_PR_SET_PDEATHSIG = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_LOWEST_BEST_EFFORT = (2 << 13) | 7


def main(parent: int, command: list[str]) -> None:
    """Lower our priority, tie our life to the parent's, and become `command`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before we could ask to be told.
        os._exit(1)
    os.umask(0o022)
    os.nice(NICENESS)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        libc.syscall(number, 1, 0, _IOPRIO_LOWEST_BEST_EFFORT)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
