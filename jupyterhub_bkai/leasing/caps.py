"""What a request counts for, and how much of it somebody may run at a time.

Pure. Amounts are exact, by name: "sessions", "cpu" (cores), "memory" (MiB), each kind of accelerator by its slot's name
(devices, also parts of one), and "fgpu" for accelerators of every kind together (devices, too).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from jupyterhub_bkai.model import Request

Amounts = Mapping[str, Fraction]

#: amounts that are no slot's
PLAIN = ("sessions", "cpu", "memory", "fgpu")


def needs(request: Request) -> dict[str, Fraction]:
    """What one session of a request counts for; `count` is not looked at."""
    found = {
        "sessions": Fraction(1),
        "cpu": Fraction(request.cpu_milli, 1000),
        "memory": Fraction(request.memory_mib),
    }
    if request.wish is not None:
        found[request.wish.slot] = found["fgpu"] = request.wish.share * request.wish.count
    return found


def total(each: Iterable[Amounts]) -> dict[str, Fraction]:
    """All of them together."""
    found: dict[str, Fraction] = {}
    for amounts in each:
        for name, amount in amounts.items():
            found[name] = found.get(name, Fraction(0)) + amount
    return found


@dataclass(frozen=True, slots=True)
class Excess:
    """The first amount that is more than may be: its name, what may be, what is taken already, what is asked."""

    name: str
    most: Fraction
    taken: Fraction
    asked: Fraction


def excess(most: Amounts, taken: Amounts, asked: Amounts, times: int = 1) -> Excess | None:
    """What of `times` × `asked`, beside what is taken, is more than `most`; None when all of it may be."""
    for name, limit in most.items():
        wanted, held = asked.get(name, Fraction(0)) * times, taken.get(name, Fraction(0))
        if wanted and held + wanted > limit:
            return Excess(name, limit, held, wanted)
    return None


@dataclass(slots=True)
class Cap:
    """How much somebody may run at a time, in what name, and how much of it runs."""

    most: Amounts
    #: who may and where, for sentences: "Default allows each person", "The project vision allows its members together"
    title: str = ""
    taken: dict[str, Fraction] = field(default_factory=dict)

    def count(self, request: Amounts, sign: int) -> None:
        """Something begins (1) or ends (-1) to run."""
        for name in self.most:
            if amount := request.get(name):
                self.taken[name] = self.taken.get(name, Fraction(0)) + sign * amount
