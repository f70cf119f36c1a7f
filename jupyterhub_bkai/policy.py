"""What a person may have: the administrator's rules, and the check of a request against them.

Pure. Three kinds of policies count at once: the group's for each person in it, a person's own, and their project's for
all its members together. `check` raises `PolicyDenied` with the policy that refuses and what is left; what may be asked
for but not run at a time yet waits (`caps_of`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from jupyterhub_bkai.errors import PolicyDenied
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing.caps import Amounts, Excess, excess, needs, total
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.model import Mount, Person, Request, SessionType
from jupyterhub_bkai.notices.kinds import Ways
from jupyterhub_bkai.options import duration_text, shown, size_text

#: who has no policy of their own has the one of this name
EVERYBODY = "*"
PRIORITY = 10
HIGHEST = 100


@dataclass(frozen=True, slots=True)
class Folder:
    """A shared folder the administrator declared: its absolute path and who gets it how ("ro"/"rw" by group)."""

    name: str
    path: str
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much somebody may have; an amount that is not named is not limited.

    `total` counts everything that lives, `pending` what waits of it, `size` each session: more is refused. `running` is
    what may run at a time: more waits.
    """

    total: Amounts = field(default_factory=dict)
    pending: Amounts = field(default_factory=dict)
    size: Amounts = field(default_factory=dict)
    running: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """A person's policy, or a project's. Of priorities, `priority` is what a request has that names none."""

    name: str
    limits: Limits = field(default_factory=Limits)
    priority: int | None = None
    max_priority: int | None = None
    max_duration_s: int | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """Options under one name, to be chosen instead of amounts."""

    name: str
    title: str
    options: Mapping[str, str]
    groups: tuple[str, ...] = ()
    public: bool = True
    hub_groups: frozenset[str] = frozenset()

    def open_to(self, person: Person) -> bool:
        """True when the person may choose it."""
        return self.public or person.admin or not self.hub_groups.isdisjoint(person.groups)


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group: nodes, the unit its accelerators are counted in, and who may use it for what."""

    name: str
    title: str
    nodes: tuple[str, ...] = ()
    unit: Unit = field(default_factory=Unit)
    session_types: tuple[SessionType, ...] = (SessionType.INTERACTIVE, SessionType.BATCH)
    public: bool = True
    users: frozenset[str] = frozenset()
    hub_groups: frozenset[str] = frozenset()
    images: tuple[str, ...] = ()
    cpu_overcommit: Fraction = Fraction(4)
    default_duration_s: int | None = None
    max_duration_s: int | None = None
    max_priority: int | None = None
    #: how long a request may wait here
    queue_limit_s: int | None = None
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)

    def open_to(self, person: Person) -> bool:
        """True when the person may use the group at all."""
        return (
            self.public
            or person.admin
            or person.name in self.users
            or not self.hub_groups.isdisjoint(person.groups)
        )

    def has_image(self, version: str) -> bool:
        """True when sessions of the group may use the image version (an empty list allows every one)."""
        return not self.images or any(version == i or version.startswith(f"{i}/") for i in self.images)


@dataclass(frozen=True, slots=True)
class Settings:
    """The administrator's settings, checked: those of the file, and the rules."""

    groups: tuple[Group, ...] = (Group("default", "Default"),)
    users: Mapping[str, Policy] = field(default_factory=dict)
    projects: Mapping[str, Policy] = field(default_factory=dict)
    presets: tuple[Preset, ...] = ()
    folders: tuple[Folder, ...] = ()
    devices: str = "auto"
    reserve_mib: int | None = None
    default_version: str | None = None
    queue_limit_s: int = 7 * 86400
    start_limit_s: int = 600
    image_roots: tuple[str, ...] = ()
    subdomain_host: str | None = None
    #: seconds before a session's end at which its owner is warned, most first
    warn_before_s: tuple[int, ...] = (1800, 600, 120)
    notices: Ways = field(default_factory=Ways)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> Group | None:
        """The group of that name."""
        return next((group for group in self.groups if group.name == name), None)

    def queue_limit_of(self, group: str) -> int:
        """How many seconds a request may wait in a group."""
        found = self.group(group)
        return (found.queue_limit_s if found else None) or self.queue_limit_s

    def of_person(self, name: str) -> Policy | None:
        """A person's policy: their own, or everybody's."""
        return self.users.get(name) or self.users.get(EVERYBODY)

    def of_project(self, name: str | None) -> Policy | None:
        """A project's policy: its own, or that of every project; None without a project."""
        return (self.projects.get(name) or self.projects.get(EVERYBODY)) if name else None


@dataclass(frozen=True, slots=True)
class Holding:
    """One live or waiting request, as it counts."""

    user: str
    group: str
    project: str | None
    waiting: bool
    request: Request

    @classmethod
    def of(cls, user: str, request: Request, *, waiting: bool) -> "Holding":
        """What a person's request counts."""
        return cls(user, request.group, request.project, waiting, request)

    @property
    def amounts(self) -> Amounts:
        """What it counts for; read only where there is a limit."""
        return needs(self.request)


@dataclass(frozen=True, slots=True)
class _Clause:
    """One policy that counts for a request: the words for it, its limits, and what counts already."""

    title: str
    limits: Limits
    mine: Sequence[Holding]


def check(
    settings: Settings,
    person: Person,
    request: Request,
    holdings: Iterable[Holding],
    former: Request | None = None,
) -> None:
    """Raises `PolicyDenied` when the request would exceed a limit; `holdings` are at least the person's and those of
    the request's project. `former` is what a request that is changed asked for: a priority that an administrator gave
    it stays, in the group where it was given.
    """
    group = settings.group(request.group)
    if group is None or not group.open_to(person):
        raise PolicyDenied(
            f"You may not use the resource group {shown(request.group)}.", fields={"group": "not open to you"}
        )
    if not group.has_image(request.version):
        raise _denied("version", f"{group.title} does not allow the image version {request.version}.")
    asked = needs(request)
    together = request.count if request.gang else 1
    for clause in _clauses(settings, group, person, request, [*holdings]):
        _check_clause(clause, asked, request.count, group.unit, together)
    if former is None or (request.priority, request.group) != (former.priority, former.group):
        _check_priority(settings, group, person, request)
    _check_duration(settings, person, request)


def _clauses(
    settings: Settings, group: Group, person: Person, request: Request, holdings: Sequence[Holding]
) -> Iterable[_Clause]:
    mine = [holding for holding in holdings if holding.user == person.name]
    here = [holding for holding in mine if holding.group == group.name]
    yield _Clause(f"{group.title} allows each person", group.limits, here)
    if (own := settings.of_person(person.name)) is not None:
        yield _Clause("Your policy allows you", own.limits, mine)
    if (shared := settings.of_project(request.project)) is not None:
        ours = [holding for holding in holdings if holding.project == request.project]
        yield _Clause(f"The project {request.project} allows its members together", shared.limits, ours)


def _check_clause(clause: _Clause, asked: Amounts, count: int, unit: Unit, together: int) -> None:
    title, limits = clause.title, clause.limits
    if over := excess(limits.size, {}, asked):
        raise _denied(
            _FIELD.get(over.name, "fgpu"),
            f"{title} {amount_text(over.name, over.most, unit)} in a session; "
            f"this asks for {amount_text(over.name, over.asked, unit)}.",
        )
    live = total(h.amounts for h in clause.mine) if limits.total else {}
    if over := excess(limits.total, live, asked, count):
        raise _denied(_field(over), f"{title} {_left(over, unit, 'at a time; you can have')}")
    # Whether they start at once is not known yet, so all of them count.
    waiting = total(h.amounts for h in clause.mine if h.waiting) if limits.pending else {}
    if over := excess(limits.pending, waiting, asked, count):
        raise _denied(_field(over), f"{title} {_left(over, unit, 'waiting at a time; you can ask for')}")
    # What waits only for its own end would wait for ever.
    if over := excess(limits.running, {}, asked, together):
        each = "one session of this asks" if together == 1 else f"these {together} together ask"
        raise _denied(
            _field(over),
            f"{title} {amount_text(over.name, over.most, unit)} running at a time; "
            f"{each} for {amount_text(over.name, over.asked, unit)}.",
        )


_FIELD = {"sessions": "count", "cpu": "cpu", "memory": "memory"}


def _field(over: Excess) -> str:
    return _FIELD.get(over.name, "fgpu")


def _left(over: Excess, unit: Unit, words: str) -> str:
    left = amount_text(over.name, max(Fraction(0), over.most - over.taken), unit, bare=True)
    return f"{amount_text(over.name, over.most, unit)} {words} {left} more."


def amount_text(name: str, amount: Fraction, unit: Unit, *, bare: bool = False) -> str:
    """An amount for people: "20 sessions", "16 cores", "64 GiB of memory", "4 fGPU", "2 atom devices"."""
    if name == "memory":
        return size_text(int(amount)) + ("" if bare else " of memory")
    if name == "fgpu":
        return f"{number(unit.fgpu(amount))} fGPU" if not bare else number(unit.fgpu(amount))
    if bare:
        return number(amount)
    words = {"sessions": ("session", "sessions"), "cpu": ("core", "cores")}
    one, several = words.get(name, (f"{name} device", f"{name} devices"))
    return f"{number(amount)} {one if amount == 1 else several}"


def priorities(settings: Settings, person: Person, project: str | None) -> tuple[int, int]:
    """The priority a request has that names none, and the highest that may be asked for (groups may allow less)."""
    own, shared = settings.of_person(person.name), settings.of_project(project)
    most = max((p.max_priority for p in (own, shared) if p and p.max_priority is not None), default=PRIORITY)
    usual = next((p.priority for p in (shared, own) if p and p.priority is not None), PRIORITY)
    return usual, HIGHEST if person.admin else max(most, usual)


def _check_priority(settings: Settings, group: Group, person: Person, request: Request) -> None:
    usual, most = priorities(settings, person, request.project)
    if group.max_priority is not None and not person.admin:
        most = min(most, group.max_priority)
    if request.priority > most and request.priority > usual:
        raise _denied("priority", f"You may ask for a priority of at most {most} here.")


def _check_duration(settings: Settings, person: Person, request: Request) -> None:
    for title, found in (
        ("Your policy", settings.of_person(person.name)),
        (f"The project {request.project}", settings.of_project(request.project)),
    ):
        most = found.max_duration_s if found else None
        if most is not None and (request.duration_s is None or request.duration_s > most):
            raise _denied(
                "duration", f"{title} allows sessions of at most {duration_text(most)}; ask for that or less."
            )


def longest(settings: Settings, person: Person, project: str | None = None) -> int | None:
    """How many seconds a person's sessions may take by their own policy and their project's; None for no limit."""
    found = (settings.of_person(person.name), settings.of_project(project))
    return min((p.max_duration_s for p in found if p and p.max_duration_s is not None), default=None)


def caps_of(settings: Settings, user: str, request: Request) -> Mapping[str, tuple[str, Amounts]]:
    """What of a request's may run at a time: whom it counts for → the words for it, and the amounts."""
    found: dict[str, tuple[str, Amounts]] = {}
    group = settings.group(request.group)
    if group is not None and group.limits.running:
        found[f"group {group.name} {user}"] = f"{group.title} allows each person", group.limits.running
    own, shared = settings.of_person(user), settings.of_project(request.project)
    if own is not None and own.limits.running:
        found[f"user {user}"] = "Your policy allows you", own.limits.running
    if shared is not None and shared.limits.running:
        words = f"The project {request.project} allows its members together"
        found[f"project {request.project}"] = words, shared.limits.running
    return found


def _denied(key: str, sentence: str) -> PolicyDenied:
    return PolicyDenied(sentence, reason="quota", fields={key: sentence})


def mounts(settings: Settings, group: Group) -> tuple[Mount, ...]:
    """The folders sessions of a group may attach."""
    return tuple(Mount(f.name, f.groups[group.name]) for f in settings.folders if group.name in f.groups)
