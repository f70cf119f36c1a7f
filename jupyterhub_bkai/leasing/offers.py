"""The smallest change of a waiting request with which it would start now.

Pure. Found by asking the scheduler itself, about the state as it is, one change at a time: less of the accelerator,
fewer devices, fewer processors, less memory, a shorter duration, another resource group. Nothing is offered that the
scheduler would not grant at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing.queue import Waiting
from jupyterhub_bkai.leasing.scheduler import Scheduler
from jupyterhub_bkai.model import Request
from jupyterhub_bkai.options import duration_text, size_text

#: steps of what can be had less of; a processor in tenths, memory in 256 MiB, a duration in five minutes
CPU_STEP_MILLI = 100
MEMORY_STEP_MIB = 256
DURATION_STEP_S = 300
MOST_STEPS = 400


@dataclass(frozen=True, slots=True)
class Offer:
    """One change: the options it sets, the whole request with it, and what a button says."""

    options: Mapping[str, str]
    request: Request
    text: str


@dataclass(frozen=True, slots=True)
class Room:
    """What changes may use: the groups of the owner with their units and titles, and the least the image needs."""

    units: Mapping[str, Unit]
    titles: Mapping[str, str]
    cpu_milli: int = CPU_STEP_MILLI
    memory_mib: int = MEMORY_STEP_MIB


def offers(scheduler: Scheduler, id: str, room: Room, now_ms: int) -> list[Offer]:
    """Of each kind of change the smallest that starts the request now, or nothing. Raises KeyError for one who does
    not wait.
    """
    item = scheduler.waiting(id)
    if scheduler.place(id, now_ms) == 0 or item.ids:
        return []
    found = []
    for changes in (
        _less(item.request, room.units[item.request.group]),
        _fewer(item.request),
        _fewer_processors(item.request, room.cpu_milli),
        _less_memory(item.request, room.memory_mib),
        _shorter(scheduler, item, now_ms),
        _elsewhere(item.request, room),
    ):
        for offer in changes:
            if would_start(scheduler, item, offer.request, now_ms):
                found.append(offer)
                break
    return found


def would_start(scheduler: Scheduler, item: Waiting, request: Request, now_ms: int) -> bool:
    """Whether one who waits would start at once if it asked for this instead, and kept its place."""
    return scheduler.starts_now(replace(item, request=request), now_ms)


def _less(request: Request, unit: Unit) -> Iterator[Offer]:
    """Less of each device, a quantum at a time."""
    wish = request.wish
    if wish is None or wish.profile:
        return
    step = unit.share(unit.quantum)
    share = wish.share - step
    for _ in range(MOST_STEPS):
        if share <= 0:
            return
        fgpu = unit.fgpu(share) * wish.count
        changed = replace(request, wish=replace(wish, share=share))
        yield Offer({"fgpu": number(fgpu)}, changed, f"Start now with {number(fgpu)} fGPU")
        share -= step


def _fewer(request: Request) -> Iterator[Offer]:
    """Fewer devices."""
    wish = request.wish
    if wish is None:
        return
    for count in range(wish.count - 1, 0, -1):
        devices = "1 device" if count == 1 else f"{count} devices"
        what = {"gpu": str(count)} if wish.share == 1 and not wish.profile else {"spread": str(count)}
        yield Offer(what, replace(request, wish=replace(wish, count=count)), f"Start now with {devices}")


def _fewer_processors(request: Request, least: int) -> Iterator[Offer]:
    cpu = (request.cpu_milli - 1) // CPU_STEP_MILLI * CPU_STEP_MILLI
    for _ in range(MOST_STEPS):
        if cpu < max(CPU_STEP_MILLI, least):
            return
        cores = number(Fraction(cpu, 1000))
        yield Offer({"cpu": cores}, replace(request, cpu_milli=cpu), f"Start now with {cores} cores")
        cpu -= CPU_STEP_MILLI


def _less_memory(request: Request, least: int) -> Iterator[Offer]:
    memory = (request.memory_mib - 1) // MEMORY_STEP_MIB * MEMORY_STEP_MIB
    for _ in range(MOST_STEPS):
        if memory < max(MEMORY_STEP_MIB, request.shm_mib, least):
            return
        changed = replace(request, memory_mib=memory)
        yield Offer({"memory": f"{memory}m"}, changed, f"Start now with {size_text(memory)} of memory")
        memory -= MEMORY_STEP_MIB


def _shorter(scheduler: Scheduler, item: Waiting, now_ms: int) -> Iterator[Offer]:
    """A duration that is over before the head's reserved start."""
    kept = scheduler.hall_of(item.id).reservation
    if kept is None or kept.at_ms is None or kept.id == item.id:
        return
    most_s = (kept.at_ms - now_ms - scheduler.start_limit_ms) // 1000
    now_s = item.request.duration_s
    longest = most_s if now_s is None else min(most_s, now_s - 1)
    seconds = longest // DURATION_STEP_S * DURATION_STEP_S
    if seconds >= DURATION_STEP_S:
        changed = replace(item.request, duration_s=seconds)
        text = f"Start now, and end after {duration_text(seconds)} at the latest"
        yield Offer({"duration": f"{seconds}s"}, changed, text)


def _elsewhere(request: Request, room: Room) -> Iterator[Offer]:
    """The same in another resource group."""
    for name in room.units:
        if name != request.group:
            text = f"Start now in {room.titles.get(name, name)}"
            yield Offer({"group": name}, replace(request, group=name), text)
