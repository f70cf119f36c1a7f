"""The fence of process sessions: what carries a lease is found, proven gone, or ended.

A process carries a lease when it is in the lease's cgroup, when its environment says so, or when it is a
descendant of one that does. Standard library only: the spawner, the service and the supervisor share it.

Anybody can write anything into an environment, and would keep somebody else's lease from ever ending. So what a
process says of itself counts only where it is in no lease's cgroup, and is the user whom the lease was made for (or
root's). Where all sessions are one user's and there are no cgroups, each of them can do this to the others: such a
user could as well end their processes.

What it cannot see: without cgroups (not root), a process that has emptied its environment *and* lost every
ancestor of the session. The keeper beside each session adopts such processes, so its end must come first.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from jupyterhub_bkai.fences import cgroups, private, proctable

MARKER = "BKAI_LEASE_ID"
#: how long processes that were sent SIGKILL may take to go (one that waits for a disk cannot die sooner)
KILL_PATIENCE_S = 10.0
LOOK_EVERY_S = 0.02
#: how often to look for processes that were forked while their parents were being stopped
STOP_ROUNDS = 50
#: how often to look for processes born while we looked at the others
LOOK_ROUNDS = 50
#: the parent of the kernel's own threads, which have no environment
KERNEL = 2


class Identity(NamedTuple):
    """One process for good: a pid alone is used again sooner or later, and after a reboot at once."""

    boot_id: str
    pid: int
    start_time: int

    def alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        facts = proctable.stat(self.pid) if self.boot_id == boot_id() else None
        return facts is not None and facts.alive and facts.start_time == self.start_time

    def signal(self, number: int) -> bool:
        """Send a signal to this very process and to no other; False when it is gone.

        One that we may not signal (it has become another user's) is still there: that is True.
        """
        try:
            with _handle(self.pid) as handle:
                if not self.alive():
                    return False
                if handle is None:
                    os.kill(self.pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def process_identity(pid: int) -> Identity | None:
    """Who process `pid` is at this moment, or None when there is none (or only its remains)."""
    facts = proctable.stat(pid)
    return Identity(boot_id(), pid, facts.start_time) if facts and facts.alive else None


@cache
def boot_id() -> str:
    """The kernel's name for the present boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class ProcessFence:
    """Proof about leases on this machine. Calls block for as long as they say: use a thread from a loop."""

    def __init__(self, groups: cgroups.Cgroups | None) -> None:
        self.groups = groups

    @classmethod
    def of_this_machine(cls) -> "ProcessFence":
        """The fence with the best proof there is here: cgroups where we may use them."""
        return cls(cgroups.find())

    def alive(self, lease_id: str) -> list[int]:
        """The processes that carry the lease; an empty list is the proof that there are none."""
        # Nothing in /proc is read at one moment: "nothing" has to be seen twice.
        return sorted(self._carriers(lease_id) or self._carriers(lease_id))

    def survey(self) -> dict[str, list[int]]:
        """Every lease that something carries, with those processes: one look for all leases together."""
        seen = {one.pid: one for one in _look(self.groups)}
        roots: dict[str, set[int]] = {}
        for one in seen.values():
            if one.lease is not None:
                roots.setdefault(one.lease, set()).add(one.pid)
        if self.groups:
            for lease_id in self.groups.leases():
                roots.setdefault(lease_id, set()).update(self.groups.pids(lease_id))
        processes = {pid: one.facts for pid, one in seen.items()}
        found = {
            lease_id: sorted(
                pid
                for pid in proctable.descendants(processes, pids, _elsewhere(seen, lease_id))
                if processes[pid].alive
            )
            for lease_id, pids in roots.items()
        }
        return {lease_id: pids for lease_id, pids in found.items() if pids}

    def end(self, lease_id: str, grace_s: float, *, tidy: bool = True) -> bool:
        """Ask all of the lease to end, wait up to `grace_s`, kill the rest; True when it is proven gone.

        Blocks for at most the grace and `KILL_PATIENCE_S` more. Calling it again, or while another call
        runs, does no harm. Not `tidy` leaves the empty cgroup, with what it counted, and the private folder to
        whoever calls last.
        """
        if grace_s > 0 and self._signal(lease_id, signal.SIGTERM):
            self._gone_within(lease_id, grace_s)
        deadline = time.monotonic() + KILL_PATIENCE_S
        while not (gone := not self.alive(lease_id)) and time.monotonic() < deadline:
            self._kill(lease_id)
            self._gone_within(lease_id, 5 * LOOK_EVERY_S)
        if gone and tidy:
            self.tidy(lease_id)
        return gone

    def tidy(self, lease_id: str) -> None:
        """Removes the lease's cgroup, with what it counted, and its private folder; for a lease that has ended."""
        private.remove(lease_id)
        if self.groups:
            self.groups.remove(lease_id)

    def launched_is_dead(self, handle: Mapping[str, Any]) -> bool:
        """True when the very process that a handle names is gone; False while it lives or is none of ours."""
        try:
            who = Identity(str(handle["boot_id"]), int(handle["pid"]), int(handle["start_time"]))
        except (KeyError, TypeError, ValueError):
            return False
        return not who.alive()

    def _carriers(self, lease_id: str) -> dict[int, Identity]:
        seen = {one.pid: one for one in _look(self.groups)}
        processes = {pid: one.facts for pid, one in seen.items()}
        roots = {pid for pid, one in seen.items() if one.lease == lease_id}
        for pid in self.groups.pids(lease_id) if self.groups else ():
            roots.add(pid)
            if pid not in processes and (born := proctable.stat(pid)):
                processes[pid] = born
        # Whoever asks is not part of what it asks about, even where it was started from a session.
        found = proctable.descendants(processes, roots, _elsewhere(seen, lease_id)) - {os.getpid()}
        return {
            pid: Identity(boot_id(), pid, processes[pid].start_time) for pid in found if processes[pid].alive
        }

    def _signal(self, lease_id: str, number: int) -> bool:
        reached = [who.signal(number) for who in self._carriers(lease_id).values()]
        return any(reached)

    def _kill(self, lease_id: str) -> None:
        if self.groups:
            self.groups.kill(lease_id)
        # Stopped first, and looked for again until no new ones appear: what is stopped cannot fork.
        stopped: set[Identity] = set()
        for _ in range(STOP_ROUNDS):
            before = len(stopped)
            for one in _look(self.groups):
                # At once, not after the look: what replaces itself all the time is somebody else by then.
                who = Identity(boot_id(), one.pid, one.facts.start_time)
                if one.lease == lease_id and who not in stopped and one.pid != os.getpid():
                    who.signal(signal.SIGSTOP)
                    stopped.add(who)
            for who in set(self._carriers(lease_id).values()) - stopped:
                who.signal(signal.SIGSTOP)
                stopped.add(who)
            if len(stopped) == before:
                break
        self._signal(lease_id, signal.SIGKILL)

    def _gone_within(self, lease_id: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._carriers(lease_id):
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_EVERY_S)
        return True


class Seen(NamedTuple):
    """A process, and the lease that it carries by itself: known from its `cgroup`, or believed of its environment."""

    pid: int
    facts: proctable.Stat
    lease: str | None = None
    cgroup: bool = False


def _elsewhere(seen: Mapping[int, Seen], lease_id: str) -> set[int]:
    """The processes that are in some other lease's cgroup: not of this one, whoever their parents are."""
    return {pid for pid, one in seen.items() if one.cgroup and one.lease != lease_id}


def _look(groups: cgroups.Cgroups | None) -> Iterator[Seen]:
    """Every process, with the lease it carries; some may come twice, the last word counts.

    Those born while we look come, too, until there are no new ones: otherwise something that forks and ends
    all the time would always be one pid ahead.
    """
    seen: set[int] = set()
    unsure = []
    owners = cache(private.owner)
    for _ in range(LOOK_ROUNDS):
        born = [pid for pid in proctable.pids() if pid not in seen]
        if not born:
            break
        seen.update(born)
        for pid in born:
            facts = proctable.stat(pid)
            if facts is None:
                continue
            one, silent = _judged(pid, facts, groups, owners)
            yield one
            if silent and facts.parent not in (0, KERNEL):
                unsure.append(pid)
    for pid in unsure:
        # One that is just starting a program shows no environment for a moment.
        facts = proctable.stat(pid)
        if facts is not None:
            yield _judged(pid, facts, groups, owners)[0]


def _judged(
    pid: int, facts: proctable.Stat, groups: cgroups.Cgroups | None, owners: Callable[[str], int | None]
) -> tuple[Seen, bool]:
    """One process, and whether it has no environment at all."""
    if not facts.alive:
        return Seen(pid, facts), False
    if groups and (lease_id := groups.lease_of(pid, facts)):
        return Seen(pid, facts, lease_id, cgroup=True), False
    mark = proctable.variable(pid, facts, MARKER.encode())
    lease_id = (mark or b"").decode("utf-8", "replace") or None
    if lease_id is not None:
        owner = owners(lease_id)
        if owner is not None and proctable.user(pid) not in (owner, 0):
            lease_id = None
    return Seen(pid, facts, lease_id), mark is None


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    """The kernel's handle on a process, which no other process can come to own; None on old kernels."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)
