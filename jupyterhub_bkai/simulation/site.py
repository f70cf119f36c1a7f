"""The simulated site: its machines, its settings, and the variants of its queue rules that are compared.

Machines come from a shipped sample or a TOML file of fake devices, copied as often as wanted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jupyterhub_bkai import policy
from jupyterhub_bkai import settings as rulebook
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.fake import described
from jupyterhub_bkai.gpus.fit import Placement
from jupyterhub_bkai.gpus.source import SourceOptions
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.model import Device, Node
from jupyterhub_bkai.options import amount, seconds, shown

#: what a machine has for each of its devices where the file of devices says nothing
CPU_MILLI, MEMORY_MIB = 16_000, 131_072
#: a policy of this name is that of the settings file
AS_IS = "settings"
_KEYS = ("discipline", "placement", "backfill", "skip_after", "half_life", "depth")


@dataclass(frozen=True, slots=True)
class Site:
    """Machines and settings; `name` is the policy's, as it is shown."""

    name: str
    nodes: tuple[Node, ...]
    settings: policy.Settings


def settings_of(path: Path | None) -> policy.Settings:
    """The settings in a file; groups take any image version, since no image is started. Raises `SettingsError`."""
    try:
        found = rulebook.load(path.read_text(encoding="utf-8")) if path is not None else policy.Settings()
    except UnicodeDecodeError:
        raise SettingsError([(str(path), "this is not a text in UTF-8.")]) from None
    except OSError as error:
        raise SettingsError([(str(path), f"it cannot be read ({error.strerror}).")]) from None
    return replace(found, groups=tuple(replace(group, images=()) for group in found.groups))


def machines(devices: str, copies: int, settings: policy.Settings, folder: Path = Path()) -> tuple[Node, ...]:
    """The machines that a sample ("fake:NAME") or a TOML file describes, `copies` of each. Raises `SettingsError`."""
    options = SourceOptions("local", settings.reserve_mib, folder=folder)
    layout = described(devices.removeprefix("fake:"), options)
    known = {node.name: node for node in layout.machines}
    found = []
    for name in dict.fromkeys([*known, *(device.node for device in layout.devices)]):
        mine = tuple(device for device in layout.devices if device.node == name)
        usual = Node(name, CPU_MILLI * max(1, len(mine)), MEMORY_MIB * max(1, len(mine)))
        found.append(replace(known.get(name, usual), devices=mine))
    return tuple(_copies(found, copies))


def _copies(nodes: Iterable[Node], count: int) -> Iterable[Node]:
    for node in nodes:
        for number in range(1, count + 1):
            name = f"{node.name}-{number}" if count > 1 else node.name
            yield replace(
                node, name=name, devices=tuple(_moved(device, name, number) for device in node.devices)
            )


def _moved(device: Device, node: str, number: int) -> Device:
    return replace(device, node=node, id=f"{device.id}-{number}")


def variant(settings: policy.Settings, text: str, folder: Path = Path()) -> policy.Settings:
    """The settings with the queue rules that `text` names: "fair", "drf,backfill=false", "spread", the rules of
    another settings file, or "settings" for those they have. Raises `SettingsError` with one sentence.
    """
    if text == AS_IS:
        return settings
    if text.endswith((".yaml", ".yml")):
        return settings_of(folder / text)
    body: dict[str, object] = {}
    for part in text.split(","):
        key, value = _setting(part.strip(), text)
        if key in body:
            raise SettingsError([(f"policy “{shown(text)}”", f"{key} is said twice.")])
        body[key] = value
    return replace(
        settings,
        groups=tuple(
            replace(group, rules=rulebook.rules(body, group.rules, f"policy “{shown(text)}”"))
            for group in settings.groups
        ),
    )


def _setting(part: str, whole: str) -> tuple[str, object]:
    key, equals, value = part.partition("=")
    if not equals:
        for name, kinds in (("discipline", Discipline), ("placement", Placement)):
            if part in [str(kind) for kind in kinds]:
                return name, part
        known = ", ".join([*Discipline, *Placement])
        raise SettingsError(
            [
                (
                    f"policy “{shown(whole)}”",
                    f"there is no discipline or placement “{shown(part)}”; known are {known}, KEY=VALUE for the "
                    f"other settings of a queue ({', '.join(_KEYS[2:])}), or the name of a settings file (.yaml).",
                )
            ]
        )
    if value in ("true", "false"):
        return key, value == "true"
    if key == "half_life" and seconds(value) is None:
        raise SettingsError(
            [(f"policy “{shown(whole)}”", f"“{shown(value)}” is not a time such as 7d or 12h.")]
        )
    return key, value if amount(value) is None or key == "half_life" else int(amount(value) or 0)
