"""The order of the waiting and why each of them waits.

Pure. First come, first served in each resource group: the head waits for what it needs and nobody overtakes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyterhub_bkai.gpus.fit import Choice, NodeBook, Shortage, choose
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.model import Request
from jupyterhub_bkai.options import size_text


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue. `order` is its place in time, unique over all groups."""

    id: str
    order: int
    request: Request


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands: its position (1 is next), the constraint that binds, and the sentence that says so."""

    position: int
    why: str
    shortage: Shortage | None


def order(waiting: Sequence[Waiting]) -> dict[str, list[Waiting]]:
    """The queue of each group, next first."""
    queues: dict[str, list[Waiting]] = {}
    for item in sorted(waiting, key=lambda w: w.order):
        queues.setdefault(item.request.group, []).append(item)
    return queues


def decide(
    queue: Sequence[Waiting], books: Mapping[str, NodeBook]
) -> tuple[list[tuple[Waiting, Choice]], Shortage | None]:
    """Who of one group's queue gets what now, and what the first of the rest is short of."""
    left = dict(books)
    grants: list[tuple[Waiting, Choice]] = []
    for item in queue:
        request = item.request
        choice = choose(list(left.values()), request.wish, request.cpu_milli, request.memory_mib)
        if isinstance(choice, Shortage):
            return grants, choice
        grants.append((item, choice))
        left[choice.node] = left[choice.node].take(request.cpu_milli, request.memory_mib, choice.slices)
    return grants, None


def standings(queue: Sequence[Waiting], shortage: Shortage | None, unit: Unit) -> dict[str, Standing]:
    """Position and reason of everyone in one group's queue; `shortage` is the head's, from `decide`."""
    found = {}
    for place, item in enumerate(queue, 1):
        if place == 1:
            why = sentence(shortage, item.request, unit) if shortage else "It starts in a moment."
            found[item.id] = Standing(1, why, shortage)
        else:
            ahead = "1 request is" if place == 2 else f"{place - 1} requests are"
            why = f"{ahead} ahead of it in {item.request.group}."
            if shortage:
                why += f" The first of them waits: {sentence(shortage, queue[0].request, unit)}"
            found[item.id] = Standing(place, why, None)
    return found


def sentence(shortage: Shortage, request: Request, unit: Unit) -> str:
    """The constraint that binds, in words with numbers."""
    group = request.group
    if shortage.what == "node":
        return f"No machine of {group} takes new sessions at present."
    if shortage.what == "cpu":
        asked, free = number(shortage.asked / 1000), number(shortage.free / 1000)
        return f"It needs {asked} cores on one machine; {free} are free."
    if shortage.what == "memory":
        asked, free = size_text(int(shortage.asked)), size_text(int(shortage.free))
        return f"It needs {asked} of memory on one machine; {free} are free."
    wish = request.wish
    assert wish is not None
    if wish.profile:
        return f"It needs {shortage.pieces} × {wish.profile}; {shortage.free_pieces} can be cut now."
    if wish.share == 1 and wish.count > 1:
        return f"It needs {wish.count} idle devices on one machine; {shortage.free_pieces} are idle."
    asked, free = number(unit.fgpu(shortage.asked)), number(unit.fgpu(max(Fraction(0), shortage.free)))
    if shortage.pieces > 1:
        have = shortage.free_pieces
        return f"It needs {asked} fGPU on each of {shortage.pieces} devices; {have} have that much free."
    return f"It needs {asked} fGPU on one device; at most {free} fGPU is free on one."
