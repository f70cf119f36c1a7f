"""NVIDIA's devices, through the library that comes with the driver (NVML).

Owns every NVML call that only looks. Changes nothing on a card and makes no CUDA context, so looking takes no
memory of a device. NVML is open only while a look lasts: an open one would keep an administrator from resetting
a card or switching its MIG mode, and would not see cards that come and go.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import byref, c_uint
from dataclasses import replace
from typing import Any

import pynvml

from jupyterhub_bkai.gpus.source import (
    NO_DRIVER,
    DeviceProcess,
    Health,
    MigInstance,
    Source,
    SourceOptions,
    SourceProblem,
    gone,
)
from jupyterhub_bkai.model import Device, MigProfile

_MIB = 1024 * 1024

#: NVML's code → our stable reason and a sentence. Where `{card}` stands, the device's name is put.
_SENTENCES: Mapping[int, tuple[str, str]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "driver-missing",
        NO_DRIVER,
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "driver-not-loaded",
        "NVIDIA's library is installed, but its driver is not running: load the kernel module “nvidia” "
        "if there is an NVIDIA GPU.",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "driver-mismatch",
        "NVIDIA's library and the running driver have different versions, as after an update: restart the machine.",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "no-permission",
        "The NVIDIA driver refuses this user: let the service's user read and write /dev/nvidia* and try again.",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "driver-old",
        "The NVIDIA driver is too old to describe its devices: install version 535 or later.",
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "gpu-lost",
        "{card} has fallen off the bus: restart the machine; if it happens again, have the card checked.",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        "reset-required",
        "{card} needs a reset: stop its programs and run “nvidia-smi --gpu-reset”, or restart the machine.",
    ),
    pynvml.NVML_ERROR_TIMEOUT: (
        "timeout",
        "{card} does not answer: look at the kernel's log, and restart the machine if it stays so.",
    ),
    pynvml.NVML_ERROR_IRQ_ISSUE: (
        "irq",
        "{card} gets no interrupts: check the machine's firmware settings and restart it.",
    ),
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: (
        "no-power",
        "{card} has no external power: connect its power cables.",
    ),
}

#: Answers that mean "this card or driver does not tell that", as against "something is wrong".
_UNTOLD = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)

#: CUDA cores in one SM by compute capability, where it is not 128 (NVML tells cores, not SMs, of a whole card).
_CORES_PER_SM = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}

#: What the driver says a sick card needs; anything but the first keeps new sessions away.
_RECOVERY = {
    pynvml.NVML_GPU_RECOVERY_ACTION_NONE: "",
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "needs a reset",
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "needs the machine restarted",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: "needs traffic from other cards to end",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: "works in part only and needs a reset once its sessions end",
}


class _Broken(Exception):
    """A card that could not be read; `uuid` if at least that was told."""

    def __init__(self, index: int, uuid: str | None, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.uuid = uuid
        self.problem = _problem(error, f"The NVIDIA GPU {index}")


class NvidiaSource(Source):
    """All NVIDIA GPUs of this machine, whole or in MIG mode. The identity of a card is its UUID."""

    name = "nvidia"
    fake = False

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._known: dict[str, Device] = {}
        self._complaints: tuple[str, ...] = ()

    def devices(self) -> list[Device]:
        """The cards in the driver's order. A card seen before that answers no more stays in the list, unhealthy."""
        found: list[Device] = []
        broken: list[_Broken] = []
        with self._look():
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    found.append(self._device(index))
                except _Broken as trouble:
                    broken.append(trouble)
        complaints = []
        for card in broken:
            complaints.append(card.problem.message)
            last = self._remembered(card, {device.id for device in found})
            if last:
                found.append(replace(last, index=card.index, healthy=False))
        found.sort(key=lambda device: device.index)
        self._known = {device.id: device for device in found}
        self._complaints = tuple(complaints)
        return found

    def health(self, device: Device) -> Health:
        """The card's own word: its recovery action, its spare memory rows, or why it does not answer."""
        card = f"{device.model} {device.index}"
        with self._look():
            try:
                return _health(pynvml.nvmlDeviceGetHandleByUUID(device.id), card)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_NOT_FOUND:
                    return gone(device)
                return Health(False, _problem(error, card).message)

    def instances(self, device: Device) -> tuple[MigInstance, ...]:
        """The MIG devices on the card, whoever made them."""
        with self._look(device):
            handle = pynvml.nvmlDeviceGetHandleByUUID(device.id)
            return tuple(_instance(device, handle, mig) for mig in _mig_handles(handle))

    def processes(self, device: Device) -> tuple[DeviceProcess, ...]:
        """Compute processes of the card, MPS clients among them, by the host's process ids."""
        with self._look(device):
            handle = pynvml.nvmlDeviceGetHandleByUUID(device.id)
            uuids = {_instance_key(mig): pynvml.nvmlDeviceGetUUID(mig) for mig in _mig_handles(handle)}
            listed = [
                *_told(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle, default=[]),
                *_told(pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, handle, default=[]),
            ]
        return tuple(_process(entry, uuids) for entry in listed)

    def facts(self) -> Mapping[str, str]:
        """The driver's version, NVML's and the newest CUDA the driver can run."""
        with self._look():
            cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion_v2, default=0)
            told = {
                "driver": _told(pynvml.nvmlSystemGetDriverVersion, default=""),
                "nvml": _told(pynvml.nvmlSystemGetNVMLVersion, default=""),
                "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            }
        return {key: value for key, value in told.items() if value}

    @property
    def complaints(self) -> tuple[str, ...]:
        """A sentence for each card that did not answer in the last look."""
        return self._complaints

    @contextmanager
    def _look(self, device: Device | None = None) -> Iterator[None]:
        """NVML, open for the length of the block and closed after it however it ends."""
        card = f"{device.model} {device.index}" if device else "An NVIDIA GPU"
        with self._lock:
            try:
                pynvml.nvmlInit()
                try:
                    yield
                finally:
                    # A driver that has gone meanwhile cannot be closed any more, and need not be.
                    with suppress(pynvml.NVMLError):
                        pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                raise _problem(error, card) from error

    def _device(self, index: int) -> Device:
        uuid = None
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            return self._read(index, uuid, handle)
        except (pynvml.NVMLError, SourceProblem) as error:
            raise _Broken(index, uuid, error) from error

    def _read(self, index: int, uuid: str, handle: Any) -> Device:
        model = pynvml.nvmlDeviceGetName(handle)
        mig = _profiles(handle) if _mig_mode(handle)[0] else ()
        memory, reserved = _memory(handle, mig)
        reserve = reserved if self._options.reserve_mib is None else self._options.reserve_mib
        return Device(
            id=uuid,
            node=self._options.node,
            index=index,
            slot="cuda",
            model=model,
            memory_mib=memory,
            sms=_sms(handle, mig),
            reserve_mib=min(reserve, memory),
            numa=_numa(handle),
            mig=mig,
            healthy=_health(handle, f"{model} {index}").ok,
        )

    def _remembered(self, trouble: _Broken, taken: set[str]) -> Device | None:
        """The card as last read: by its UUID, or, where a lost card tells not even that, by its place."""
        if trouble.uuid:
            return self._known.get(trouble.uuid)
        missing = (device for device in self._known.values() if device.id not in taken)
        return next((device for device in missing if device.index == trouble.index), None)


def _told(call: Callable[..., Any], *arguments: Any, default: Any) -> Any:
    """What NVML answers, or `default` where card, driver or rights do not give it. Real trouble is raised."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _UNTOLD:
            return default
        raise


def _problem(error: Exception, card: str) -> SourceProblem:
    if isinstance(error, SourceProblem):
        return error
    code = getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN)
    fallback = "{card} cannot be read (" + str(error) + "): run “nvidia-smi” on this machine to see more."
    reason, sentence = _SENTENCES.get(code, ("unknown", fallback))
    return SourceProblem(sentence.replace("{card}", card), reason=reason)


def _memory(handle: Any, mig: tuple[MigProfile, ...]) -> tuple[int, int]:
    """MiB of the whole card, and how much of it the driver keeps for itself."""
    info = _told(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2, default=None)
    if info is None:
        info = _told(pynvml.nvmlDeviceGetMemoryInfo, handle, default=None)
    if info is not None:
        return info.total // _MIB, -(-getattr(info, "reserved", 0) // _MIB)
    if mig:  # without root, a card in MIG mode tells only what its profiles have
        return max(profile.memory_mib for profile in mig), 0
    raise SourceProblem(
        "An NVIDIA GPU without memory of its own (it shares the machine's) cannot be given in slices yet: "
        "leave it out by naming another device source.",
        reason="no-memory",
    )


def _sms(handle: Any, mig: tuple[MigProfile, ...]) -> int:
    cores = _told(pynvml.nvmlDeviceGetNumGpuCores, handle, default=0)
    if not cores:
        return max((profile.sm_milli // 1000 for profile in mig), default=0)
    capability = _told(pynvml.nvmlDeviceGetCudaComputeCapability, handle, default=(0, 0))
    return int(cores) // _CORES_PER_SM.get(capability, 192 if capability[0] == 3 else 128)


def _numa(handle: Any) -> int | None:
    """The memory node nearest to the card (not `nvmlDeviceGetNumaNodeId`: that is the card's own memory)."""
    words = _told(
        pynvml.nvmlDeviceGetMemoryAffinity, handle, 2, pynvml.NVML_AFFINITY_SCOPE_NODE, default=None
    )
    mask = sum(int(word) << (64 * place) for place, word in enumerate(words or ()))
    return (mask & -mask).bit_length() - 1 if mask else None


def _mig_mode(handle: Any) -> tuple[bool, bool]:
    """Whether the card is in MIG mode now, and whether it will be after a reset."""
    now, later = _told(pynvml.nvmlDeviceGetMigMode, handle, default=[0, 0])
    return bool(now), bool(later)


def _profiles(handle: Any) -> tuple[MigProfile, ...]:
    """The ways in which this card can be cut. Numbers of profiles differ between cards: only names are kept.

    Profiles with an extension ("1g.18gb+me": the same cut, once per card, with the media engines) are left out:
    that only one of them can exist is not for slots to say.
    """
    profiles: dict[str, MigProfile] = {}
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        info = _told(pynvml.nvmlDeviceGetGpuInstanceProfileInfo, handle, number, default=None)
        if info is None:
            continue
        name = info.name.removeprefix("MIG ")
        starts, size = _placements(handle, info.id)
        if starts and "+" not in name and "-" not in name:
            memory, sms = int(info.memorySizeMB), int(info.multiprocessorCount)
            profiles[name] = MigProfile(name, size, starts, memory, sms * 1000)
    if not profiles:
        raise SourceProblem(
            "A card is in MIG mode, but the driver does not tell its profiles: update the driver or switch "
            "MIG mode off.",
            reason="no-mig-profiles",
        )
    return tuple(sorted(profiles.values(), key=lambda profile: (profile.memory_mib, profile.sm_milli)))


def _placements(handle: Any, profile: int) -> tuple[tuple[int, ...], int]:
    count = c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, None, byref(count))
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    if count.value:
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, places, byref(count))
    listed = places[: count.value]
    return tuple(sorted(place.start for place in listed)), listed[0].size if listed else 0


def _mig_handles(handle: Any) -> list[Any]:
    if not _mig_mode(handle)[0]:
        return []
    most = _told(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle, default=0)
    found = (
        _told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place, default=None)
        for place in range(most)
    )
    return [mig for mig in found if mig is not None]


def _instance_key(mig: Any) -> tuple[int, int]:
    return pynvml.nvmlDeviceGetGpuInstanceId(mig), pynvml.nvmlDeviceGetComputeInstanceId(mig)


def _instance(device: Device, handle: Any, mig: Any) -> MigInstance:
    attributes = pynvml.nvmlDeviceGetAttributes(mig)
    start, size = _position(handle, mig)
    return MigInstance(
        device=device.id,
        uuid=pynvml.nvmlDeviceGetUUID(mig),
        profile=pynvml.nvmlDeviceGetName(mig).rpartition("MIG ")[2],
        memory_mib=int(attributes.memorySizeMB),
        sm_milli=int(attributes.multiprocessorCount) * 1000,
        start=start,
        size=size,
    )


def _position(handle: Any, mig: Any) -> tuple[int | None, int | None]:
    """The memory slots of a MIG device; only root is told."""
    number = pynvml.nvmlDeviceGetGpuInstanceId(mig)
    instance = _told(pynvml.nvmlDeviceGetGpuInstanceById, handle, number, default=None)
    info = _told(pynvml.nvmlGpuInstanceGetInfo, instance, default=None) if instance is not None else None
    return (None, None) if info is None else (int(info.placement.start), int(info.placement.size))


def _process(entry: Any, uuids: Mapping[tuple[int, int], str]) -> DeviceProcess:
    used = None if entry.usedGpuMemory is None else int(entry.usedGpuMemory) // 1024
    return DeviceProcess(int(entry.pid), used, uuids.get((entry.gpuInstanceId, entry.computeInstanceId)))


def _health(handle: Any, card: str) -> Health:
    action = _recovery_action(handle)
    if action:
        words = _RECOVERY.get(action, f"asks for recovery action {action}")
        return Health(False, f"{card} {words}: no new session is put on it until that is done.")
    _, _, pending, failed = _told(pynvml.nvmlDeviceGetRemappedRows, handle, default=(0, 0, 0, 0))
    if failed:
        return Health(False, f"{card} has faulty memory and no spare rows left: have the card replaced.")
    if pending:
        return Health(True, f"{card} has set faulty memory aside: reset it when its sessions have ended.")
    now, later = _mig_mode(handle)
    if now != later:
        return Health(True, f"{card} switches MIG mode {'on' if later else 'off'} at its next reset.")
    return Health(True)


def _recovery_action(handle: Any) -> int:
    """What the driver (r560 and later) wants done about the card; 0 for nothing."""
    fields = [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
    values = _told(pynvml.nvmlDeviceGetFieldValues, handle, fields, default=None)
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return 0
    return int(values[0].value.uiVal)
