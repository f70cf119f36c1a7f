"""Until when a session may go on without anybody who waits starting later for it.

Pure. Looks at the queues and books as they are: whoever else waits and could start on the session's node once it has
ended, and neither there nor elsewhere as early without it, bounds it by that moment.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from jupyterhub_bkai import policy
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing.queue import Waiting
from jupyterhub_bkai.leasing.scheduler import Hall, Held, Scheduler
from jupyterhub_bkai.model import Person, Request
from jupyterhub_bkai.options import MAX_DURATION_S, duration_text

#: so many of those who wait are looked at in each queue, and together so many nodes for them
DEPTH, LOOKS = 20, 2000
#: nobody extends by less
LEAST_S = 60


@dataclass(frozen=True, slots=True)
class Bound:
    """The latest end there may be, and why not a later one: a clause such as "a request that waits starts then"."""

    until_ms: int
    why: str

    def left_s(self, ends_ms: int) -> int:
        """By how many seconds a session that ends then can be extended."""
        return max(0, (self.until_ms - ends_ms) // 1000)

    def sentence(self, ends_ms: int) -> str:
        """The refusal, with what would be possible."""
        left_s = self.left_s(ends_ms)
        if left_s < LEAST_S:
            return f"It cannot go on for longer: {self.why}."
        return f"It can go on for at most {duration_text(left_s // 60 * 60)} more: {self.why}."


def bound(
    scheduler: Scheduler,
    settings: policy.Settings,
    id: str,
    who: tuple[Person, Request],
    started_ms: int,
    now_ms: int,
) -> Bound:
    """What bounds the end of a session that runs and says when it ends; `who` is its owner with what they asked for."""
    allowed = _allowed(settings, *who, started_ms)
    held = scheduler.held.get(id)
    kept = _kept(scheduler, held, now_ms) if held is not None else None
    return min((one for one in (kept, allowed) if one is not None), key=lambda one: one.until_ms)


def _allowed(settings: policy.Settings, person: Person, request: Request, started_ms: int) -> Bound:
    """The maximum duration, of the group, the person and the project, counted from the session's start."""
    group = settings.group(request.group)
    longest = policy.longest(settings, person, request.project)
    most = [MAX_DURATION_S, longest, group.max_duration_s if group else None]
    seconds = min(one for one in most if one is not None)
    title = group.title if group and seconds == group.max_duration_s else "your policy or project"
    title = title if seconds < MAX_DURATION_S else "this site"
    return Bound(
        started_ms + seconds * 1000, f"{title} allows sessions of at most {duration_text(seconds)} in all"
    )


def _kept(scheduler: Scheduler, held: Held, now_ms: int) -> Bound | None:
    """What those who wait leave; None when nobody waits for what the session holds."""
    if held.ends_ms is None:
        return None
    if _capped(scheduler, held):
        return Bound(held.ends_ms, "somebody of the same project waits until one of its sessions ends")
    halls = [hall for hall in scheduler.halls.values() if held.node in hall.books]
    found = (one for hall in halls for one in _starts(scheduler, hall, held, now_ms))
    first, known = min(found, default=(None, False))
    if first is None:
        return None
    then = f"a request that waits is to start by {moment_text(first, now_ms)}"
    return Bound(first, then if known else "a request waits for what it holds")


def _starts(scheduler: Scheduler, hall: Hall, held: Held, now_ms: int) -> Iterator[tuple[int, bool]]:
    """The moments at which others start by the session's end, and whether that is known: those who wait are laid one
    after the other where and when they first fit, elsewhere rather than here, and what one is laid on is gone for the
    next.
    """
    assert held.ends_ms is not None
    kept, left = hall.reservation, {book.node: book for book in hall.books}
    depth = max(1, min(DEPTH, LOOKS // len(left)))
    for item in _first(scheduler.order(hall.name, now_ms), held.user, depth):
        request, other = item.request, item.user != held.user
        if kept is not None and kept.id == item.id and kept.at_ms is None and held.node in kept.nodes:
            if other and _concerns(held, request):  # nothing says when: whatever of it ends brings it nearer
                yield held.ends_ms, False
            continue
        for _ in range(max(1, len(item.ids))):
            moments = ((scheduler.ready(book, request, now_ms), book.node) for book in left.values())
            at, here, node = min(
                ((at, node == held.node, node) for at, node in moments if at is not None),
                default=(None, False, ""),
            )
            if at is None:
                break
            then = scheduler.at(left[node], at)
            if other and here and at >= held.ends_ms and not scheduler.alone(_with(then, held), request):
                yield at, True
            choice = scheduler.alone(then, request)
            assert choice is not None
            left[node] = left[node].hold(request.cpu_milli, request.memory_mib, choice.slices)


def _first(order: Iterable[Waiting], user: str, depth: int) -> Iterator[Waiting]:
    """Those of a queue that are looked at: so many of other people's, so that nobody hides them behind requests of
    their own.
    """
    own = others = 0
    for item in order:
        if item.user == user:
            own += 1
            if own > DEPTH:
                continue
        else:
            others += 1
        yield item
        if others >= depth:
            return


def _with(book: NodeBook, held: Held) -> NodeBook:
    return book.hold(held.cpu_milli, held.memory_mib, held.slices)


def _concerns(held: Held, request: Request) -> bool:
    """Whether what is held is of the kind that is asked for."""
    return request.wish is None or any(piece.slot == request.wish.slot for piece in held.slices)


def _capped(scheduler: Scheduler, held: Held) -> bool:
    """Whether somebody else waits because so much runs of what it counts for, and nothing else of that ends sooner."""
    for key in scheduler.awaited(held):
        ends = [one.ends_ms for one in scheduler.held.values() if key in one.caps and one.id != held.id]
        if not any(end is not None and held.ends_ms is not None and end <= held.ends_ms for end in ends):
            return True
    return False


def moment_text(ms: int, now_ms: int) -> str:
    """A moment for people: "14:20 UTC", with its day when that is another."""
    at, now = (datetime.fromtimestamp(value / 1000, UTC) for value in (ms, now_ms))
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"
