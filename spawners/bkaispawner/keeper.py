"""The process that stays beside a session: starts its server, adopts what runs away, ends with nothing left.

Run as a program by the spawner (`COMMAND`), on little of the standard library since there is one for each session.
It is the session's child subreaper: whatever loses its parent becomes its child, so "no children" is proof that
the session is over, also where there are no cgroups and whatever its processes did to their environment.

    waits for one byte on standard input: the hub has saved who we are. Without it (a killed hub) it just ends.
    SIGTERM, SIGINT     the server is asked to stop, then all else, within the grace
    SIGUSR1             all of it is killed at once
    the server ends     all else is ended; the exit code is the server's (128 + number, for a signal)
    we are killed       the kernel kills the server with us; the fence finds the rest
"""

import json
import os
import resource
import signal
import time
from ctypes import CDLL

from jupyterhub_bkai.fences import proctable

TYPE_CHECKING = False  # typing itself would cost every session 2 MB
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: program text for `python -I -S -c`; the places of our packages and the descriptor of the specification follow
COMMAND = (
    "import sys; sys.path += sys.argv[2:]; from bkaispawner.keeper import main; sys.exit(main(sys.argv[1]))"
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ASKED = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD}
#: exit codes of a server that could not even begin, as shells have them
CANNOT_RUN, NOT_FOUND = 126, 127
#: what is left after the server gets this long to end by itself
TREE_GRACE_S = 2.0
OPEN_FILES = 65536


def main(spec_file: str) -> int:
    """Keep the session that the file with this descriptor specifies; returns its exit code."""
    libc = CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if not os.read(0, 1):
        return 0
    with open(int(spec_file)) as file:
        spec = json.load(file)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    keeper = os.getpid()
    server = os.fork()
    if server == 0:
        become(spec, libc, keeper)
    return Keeper(server, float(spec["grace_s"])).keep()


class Keeper:
    """Waits for signals and for children, in one place, so that nothing can come in between."""

    def __init__(self, server: int, grace_s: float) -> None:
        self.server = server
        self.grace_s = grace_s
        self.status: int | None = None

    def keep(self) -> int:
        """Until the server has ended, and then everything else."""
        deadline: float | None = None
        while self.status is None:
            number = self._next(deadline)
            if number in (signal.SIGTERM, signal.SIGINT) and deadline is None:
                deadline = time.monotonic() + self.grace_s
                os.kill(self.server, signal.SIGTERM)
            elif number in (signal.SIGUSR1, None):
                os.kill(self.server, signal.SIGKILL)
                deadline = None
            self._reap()
        self._end_rest(grace_s=0.0 if os.WIFSIGNALED(self.status) else TREE_GRACE_S)
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def _next(self, deadline: float | None) -> int | None:
        """The next signal, or None when the deadline has passed."""
        if deadline is None:
            return signal.sigwait(ASKED)
        info = signal.sigtimedwait(ASKED, max(deadline - time.monotonic(), 0))
        return info.si_signo if info else None

    def _reap(self) -> bool:
        """Bury every child that has ended; False when there are none left, dead or alive."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.server:
                    self.status = status
        except ChildProcessError:
            return False

    def _end_rest(self, grace_s: float) -> None:
        """SIGTERM, and after the grace SIGKILL, to all that came out of the server, until it is gone."""
        deadline = time.monotonic() + grace_s
        number = signal.SIGTERM if grace_s else signal.SIGKILL
        self._signal_all(number)
        while self._reap():
            info = signal.sigtimedwait({signal.SIGCHLD, signal.SIGUSR1}, 0.05)
            if time.monotonic() >= deadline or (info and info.si_signo == signal.SIGUSR1):
                # Stopped first: what is stopped cannot fork while we look for its children.
                self._signal_all(signal.SIGSTOP)
                self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: int) -> None:
        for pid in proctable.descendants(proctable.table(), {os.getpid()}) - {os.getpid()}:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue


def become(spec: "dict[str, Any]", libc: CDLL, keeper: int) -> "NoReturn":
    """Turn this fork into the session's server; never returns."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _limit()
        _volunteer(spec["oom_score_adj"])
        if spec["groups"] is not None:
            os.setgroups(spec["groups"])
            os.setresgid(spec["gid"], spec["gid"], spec["gid"])
            os.setresuid(spec["uid"], spec["uid"], spec["uid"])
        # After the change of user, which clears it.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(CANNOT_RUN)  # it died before we said so
        os.umask(spec["umask"])
        os.chdir(spec["cwd"])
        for name, path in spec["links"]:
            link(name, path)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except (OSError, ValueError) as error:
        os.write(2, f"The session's server cannot be started: {error}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN)


def _volunteer(score: int) -> None:
    """Be killed before the hub when memory runs out; where /proc cannot be written to, be like all others."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        pass


def _limit() -> None:
    """No core files of gigabytes; as many open files as servers need, whatever the hub was started with."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def link(name: str, path: str) -> None:
    """Show a shared folder in the home folder; what the user has there under that name stays."""
    try:
        if os.path.islink(name) and os.readlink(name) != path:
            os.unlink(name)
        if not os.path.lexists(name):
            os.symlink(path, name)
    except OSError as error:
        os.write(2, f"The folder {name} cannot be shown in the home folder: {error}\n".encode())
