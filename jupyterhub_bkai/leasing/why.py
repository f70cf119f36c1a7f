"""Why somebody waits, in words with numbers.

Pure. Says what the scheduler decided, nothing else; the words for amounts are those of the group's unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from jupyterhub_bkai.gpus.fit import Shortage
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing.caps import Excess
from jupyterhub_bkai.leasing.queue import Waiting
from jupyterhub_bkai.leasing.scheduler import Hall, Scheduler
from jupyterhub_bkai.leasing.switches import Key, Kind, Switch, Switches, concern
from jupyterhub_bkai.leasing.switches import sentence as closed
from jupyterhub_bkai.model import Request
from jupyterhub_bkai.options import duration_text, size_text
from jupyterhub_bkai.policy import amount_text

NOTHING_CLOSED: Mapping[Key, Switch] = {}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands: its position (1 is next, 0 not yet), the constraint that binds, the sentence for it."""

    position: int
    why: str
    shortage: Shortage | None


def standing(
    scheduler: Scheduler,
    id: str,
    unit: Unit,
    now_ms: int,
    title: str = "",
    switches: Switches = NOTHING_CLOSED,
) -> Standing:
    """Position and reason of one who waits; `title` is what people call the group, `switches` what is closed by hand.
    Raises KeyError for one who does not wait.
    """
    found = _standing(scheduler, id, unit, now_ms, title or scheduler.hall_of(id).name, switches)
    others = len(scheduler.waiting(id).ids) - 1
    if others < 1 or "start together" in found.why:
        return found
    with_ = "with 1 other" if others == 1 else f"with {others} others"
    return replace(found, why=f"{found.why} It starts together {with_}.")


def _standing(
    scheduler: Scheduler, id: str, unit: Unit, now_ms: int, title: str, switches: Switches
) -> Standing:
    hall, item = scheduler.hall_of(id), scheduler.waiting(id)
    position = scheduler.place(id, now_ms)
    if (capped := scheduler.capped(id)) is not None:
        return Standing(0, _so_much_runs(*capped, unit), None)
    if position == 0:
        return Standing(0, _not_yet(scheduler, item, now_ms), None)
    if hall.rules.on_hold:
        held = switches.get((Kind.GROUP, hall.name))
        why = (
            closed(held, title)
            if held
            else f"The administrator holds {title}: nothing new starts at present."
        )
        return Standing(position, why, None)
    shortage = scheduler.shortage(id)
    if shortage is not None and (drained := _drained(scheduler, hall, id, switches)):
        return Standing(position, drained, shortage)
    if id == hall.head or position == 1:
        if len(item.ids) > 1 and not scheduler.could(item):
            return Standing(position, _too_many(item, title), shortage)
        return Standing(position, _first(hall, item, shortage, unit, now_ms, title), shortage)
    ahead = "1 request is" if position == 2 else f"{position - 1} requests are"
    why = f"{ahead} ahead of it in {title}."
    if hall.rules.backfill and shortage is not None:
        return Standing(position, f"{why} {sentence(shortage, item.request, unit, title)}", shortage)
    return Standing(position, f"{why}{_behind(scheduler, hall, unit, now_ms, title)}", None)


def _so_much_runs(title: str, over: Excess, unit: Unit) -> str:
    most, taken = amount_text(over.name, over.most, unit), amount_text(over.name, over.taken, unit)
    return f"{title} {most} running at a time, and {taken} run; it goes on when one of these has ended."


def _drained(scheduler: Scheduler, hall: Hall, id: str, switches: Switches) -> str:
    """What is drained and would take it, or "" where draining is not what it waits for."""
    barred = scheduler.barred(id) if switches else None
    if barred is None:
        return ""
    node, now = barred
    found = concern(hall.empty[node], switches)
    what = found[0].name
    if found[0].kind is Kind.DEVICE:
        index = next(one.device.index for one in hall.empty[node].devices if one.device.id == what)
        what = f"device {index} of {node}"
    where = "where it would fit," if now else "and nothing else is large enough for it,"
    return closed(found[0], f"{what}, {where}")


def _not_yet(scheduler: Scheduler, item: Waiting, now_ms: int) -> str:
    alive = sum(scheduler.lives(id) for id in item.after)
    if alive:
        others = "another session" if alive == 1 else f"{alive} other sessions"
        return (
            f"It starts after {others} has ended." if alive == 1 else f"It starts after {others} have ended."
        )
    return f"It is to start in {_span(item.not_before_ms - now_ms)} at the earliest."


def _too_many(item: Waiting, title: str) -> str:
    return (
        f"Its {len(item.ids)} sessions start together, and {title} has not room for all of them even when nothing else "
        "runs; ask for fewer, or not together."
    )


def _first(hall: Hall, item: Waiting, shortage: Shortage | None, unit: Unit, now_ms: int, title: str) -> str:
    if shortage is None and len(item.ids) > 1:
        return f"Its {len(item.ids)} sessions start together, and there is not yet room for all of them."
    if shortage is None:
        return "It starts in a moment."
    why = sentence(shortage, item.request, unit, title)
    kept = hall.reservation
    if kept is not None and kept.id == item.id and kept.at_ms is not None:
        why += f" It starts in {_span(kept.at_ms - now_ms)} at the latest, if nothing takes longer than said."
    return why


def _behind(scheduler: Scheduler, hall: Hall, unit: Unit, now_ms: int, title: str) -> str:
    """What the head waits for, since it is what keeps the others waiting."""
    if hall.head is None:
        return ""
    head = scheduler.waiting(hall.head)
    shortage = scheduler.shortage(hall.head)
    words = (
        f" The first of them waits: {sentence(shortage, head.request, unit, title)}"
        if shortage is not None
        else ""
    )
    kept = hall.reservation
    if hall.rules.backfill and kept is not None:
        words += " There is room for yours, but then the first would start later."
        if kept.at_ms is not None and kept.at_ms > now_ms:
            words += f" What ends within {_span(kept.at_ms - now_ms)} may start before."
    return words


def _span(milliseconds: int) -> str:
    return duration_text(max(0, milliseconds) // 1000)


def sentence(shortage: Shortage, request: Request, unit: Unit, title: str) -> str:
    """The constraint that binds, in words with numbers."""
    if shortage.what == "node":
        return f"No machine of {title} takes new sessions at present."
    if shortage.what == "cpu":
        asked, free = number(shortage.asked / 1000), number(max(Fraction(0), shortage.free) / 1000)
        return f"It needs {asked} cores on one machine; {free} are free."
    if shortage.what == "memory":
        asked, free = size_text(int(shortage.asked)), size_text(max(0, int(shortage.free)))
        return f"It needs {asked} of memory on one machine; {free} are free."
    wish = request.wish
    assert wish is not None
    if wish.profile:
        return f"It needs {shortage.pieces} × {wish.profile}; {shortage.free_pieces} can be cut now."
    if wish.share == 1 and wish.count > 1:
        return f"It needs {wish.count} idle devices on one machine; {shortage.free_pieces} are idle."
    asked = number(unit.fgpu(shortage.asked))
    if shortage.pieces > 1:
        have = shortage.free_pieces
        return f"It needs {asked} fGPU on each of {shortage.pieces} devices; {have} have that much free."
    if shortage.free <= 0:
        return f"It needs {asked} fGPU on one device; no fGPU is free."
    return f"It needs {asked} fGPU on one device; at most {number(unit.fgpu(shortage.free))} fGPU is free on one."
