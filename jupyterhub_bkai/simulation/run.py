"""One simulation after the other: a demand, under each of several policies, and what they come to."""

import asyncio
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.model import Node
from jupyterhub_bkai.options import shown
from jupyterhub_bkai.simulation import demand, faults, site, trace
from jupyterhub_bkai.simulation.figures import HOUR_MS, Figures, Meter, figures
from jupyterhub_bkai.simulation.judge import Broken
from jupyterhub_bkai.simulation.picture import draw
from jupyterhub_bkai.simulation.short import ShortMemory
from jupyterhub_bkai.simulation.world import Pace, World

Progress = Callable[[str, float, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is said on the command line. `fault_rate` is per simulated hour."""

    trace: Path | None = None
    days: float = 7.0
    load: float = 1.0
    users: int = 0
    settings: Path | None = None
    devices: str = "fake:two-80gb"
    nodes: int = 1
    policies: tuple[str, ...] = (site.AS_IS,)
    fault_rate: float = 0.0
    faults: Collection[str] = tuple(faults.Kind)
    seed: int = 0
    step_s: float | None = None
    picture: Path | None = None
    save: Path | None = None


class Failed(Exception):
    """A promise was broken; the text says which, under which policy, and how to see it again."""


@dataclass(slots=True)
class Report:
    """What was simulated, and each policy's figures."""

    sessions: int
    nodes: int
    devices: int
    horizon_s: float
    seed: int
    policies: list[Figures] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "sessions": self.sessions,
            "nodes": self.nodes,
            "devices": self.devices,
            "hours": round(self.horizon_s / 3600, 2),
            "seed": self.seed,
            "policies": [one.public() for one in self.policies],
        }


def simulate(plan: Plan, tell: Progress = lambda *_: None) -> Report:
    """Runs a plan. Raises `SettingsError` for what is wrong with its files and words, `Failed` for a broken promise."""
    settings = site.settings_of(plan.settings)
    nodes = site.machines(plan.devices, plan.nodes, settings)
    variants = [(name, site.variant(settings, name)) for name in plan.policies]
    jobs, horizon_s = _jobs(plan, settings, nodes)
    for name, one in variants:
        _check_groups(jobs, one, name)
    if plan.save is not None:
        _write(plan.save, trace.write(jobs))
    count = sum(len(node.devices) for node in nodes)
    report = Report(len(jobs), len(nodes), count, horizon_s, plan.seed)
    for name, one in variants:
        report.policies.append(_one(plan, site.Site(name, nodes, one), jobs, horizon_s, tell))
    if plan.picture is not None:
        _write(plan.picture, draw(report.policies))
    return report


def _jobs(plan: Plan, settings: policy.Settings, nodes: Sequence[Node]) -> tuple[list[trace.Job], float]:
    if plan.trace is None:
        drawn = demand.Demand(plan.days, plan.load, plan.users, plan.seed)
        return demand.generate(drawn, settings, nodes), plan.days * 86400
    try:
        jobs = trace.read(plan.trace.read_text(encoding="utf-8"), plan.trace.name)
    except UnicodeDecodeError:
        raise SettingsError([(plan.trace.name, "this is not a text in UTF-8.")]) from None
    except OSError as error:
        raise SettingsError([(str(plan.trace), f"it cannot be read ({error.strerror}).")]) from None
    return jobs, max(3600.0, jobs[-1].asked_s)


def _check_groups(jobs: Sequence[trace.Job], settings: policy.Settings, name: str) -> None:
    known = {group.name for group in settings.groups}
    for job in jobs:
        if job.group not in known:
            raise SettingsError(
                [
                    (
                        f"policy “{shown(name)}”",
                        f"there is no resource group “{shown(job.group)}”, which the trace asks for; "
                        f"its settings have {', '.join(sorted(known))}.",
                    )
                ]
            )


def _one(
    plan: Plan, place: site.Site, jobs: Sequence[trace.Job], horizon_s: float, tell: Progress
) -> Figures:
    horizon_ms = int(horizon_s * 1000)
    meter = Meter(horizon_ms, sum(len(node.devices) for node in place.nodes))
    pace = Pace(plan.seed, step_ms(plan.step_s, len(place.nodes)), compare=1 if plan.fault_rate else 1000)
    kinds = [kind for kind in faults.Kind if kind in plan.faults]
    drawn = faults.draw(plan.seed, plan.fault_rate, horizon_s / 3600, kinds)

    def observe(world: World, until_ms: int) -> None:
        meter.observe(world, until_ms)
        if world.turns % 200 == 0:
            waiting = sum(map(len, world.judge.waiting.values()))
            tell(place.name, world.clock.even_ms / HOUR_MS, waiting, len(world.judge.live) - waiting)

    world = World(place, jobs, ShortMemory(), pace, drawn, observe)
    try:
        asyncio.run(world.run())
    except Broken as error:
        at_h = world.clock.even_ms / HOUR_MS
        raise Failed(
            f"Under {place.name}, {at_h:.2f} simulated hours from the beginning: {error}. "
            f"Seed {plan.seed}; to see it again: {command(plan, place.name)}"
        ) from error
    return figures(world, meter)


def step_ms(step_s: float | None, nodes: int) -> int:
    """What happens within so many milliseconds is decided together: more on large sites, whose events are dense."""
    if step_s is not None:
        return max(1, round(step_s * 1000))
    return 1_000 if nodes <= 100 else 10_000 if nodes <= 500 else 30_000


def command(plan: Plan, name: str) -> str:
    """The command line that runs one policy of a plan again."""
    words = ["bkai", "simulate"]
    if plan.trace is not None:
        words += ["--trace", str(plan.trace)]
    else:
        words += ["--generate", "--days", f"{plan.days:g}", "--load", f"{plan.load:g}"]
        words += ["--users", str(plan.users)] if plan.users else []
    words += ["--settings", str(plan.settings)] if plan.settings else []
    words += ["--devices", plan.devices, "--nodes", str(plan.nodes), "--policy", name]
    if plan.fault_rate:
        words += ["--fault-rate", f"{plan.fault_rate:g}", "--faults", ",".join(plan.faults)]
    words += ["--seed", str(plan.seed)] + (["--step", f"{plan.step_s:g}s"] if plan.step_s else [])
    return shlex.join(words)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError([(str(path), f"it cannot be written ({error.strerror}).")]) from None
