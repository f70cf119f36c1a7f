"""Slice arithmetic: shares of a device in the administrator's unit and in MiB and SMs, and a device's book.

Pure. Amounts are exact fractions until a slice is cut; a cut rounds down to whole MiB and thousandths of SMs, so
that the slices of a device never add up to more than the device.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from jupyterhub_bkai.model import Device, MigProfile, Placement, Slice


@dataclass(frozen=True, slots=True)
class Unit:
    """The administrator's unit: `per_device` fGPU make one device; amounts are multiples of `quantum` fGPU."""

    per_device: Fraction = Fraction(1)
    quantum: Fraction = Fraction(1, 10)

    def share(self, fgpu: Fraction) -> Fraction:
        """What part of one device (or how many devices) `fgpu` is: 1 fGPU at 5 per device is 1/5."""
        return fgpu / self.per_device

    def fgpu(self, share: Fraction) -> Fraction:
        """The other way round."""
        return share * self.per_device

    def neighbours(self, fgpu: Fraction) -> tuple[Fraction, Fraction] | None:
        """The nearest amounts below and above that can be had; None when `fgpu` itself can."""
        steps = fgpu / self.quantum
        if steps.denominator == 1:
            return None
        below = steps.numerator // steps.denominator
        return below * self.quantum, (below + 1) * self.quantum


def number(value: Fraction | int, digits: int = 3) -> str:
    """A fraction as people write it: no trailing zeros, at most `digits` decimals ("0.5", "0.333", "2")."""
    text = f"{float(value):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def usable_mib(device: Device) -> int:
    """Memory that slices may take: everything but the reserve."""
    return max(0, device.memory_mib - device.reserve_mib)


def cut(device: Device, share: Fraction) -> Slice:
    """A slice of `share` (0 < share ≤ 1) of the device. 1/4 of 8,192 MiB is 2,048 MiB."""
    # In integers: this is asked of many devices for each decision.
    part, whole = share.numerator, share.denominator
    if not 0 < part <= whole:
        raise ValueError(f"a slice is more than 0 and at most 1 device, not {share}")
    return Slice(
        device=device.id,
        index=device.index,
        slot=device.slot,
        model=device.model,
        share=share,
        memory_mib=usable_mib(device) * part // whole,
        sm_milli=device.sms * 1000 * part // whole,
    )


def cut_mig(device: Device, profile: MigProfile, start: int) -> Slice:
    """The MIG instance of `profile` beginning at memory slot `start`."""
    if start not in profile.placements:
        raise ValueError(f"{profile.name} cannot begin at {start}")
    return Slice(
        device=device.id,
        index=device.index,
        slot=device.slot,
        model=device.model,
        share=Fraction(profile.memory_mib, device.memory_mib),
        memory_mib=profile.memory_mib,
        sm_milli=profile.sm_milli,
        mig=Placement(profile.name, start, profile.size),
    )


def overlapping(device: Device, slices: Iterable[Slice]) -> str | None:
    """What is wrong with these slices on one device, or None: the invariant every book must keep."""
    memory = sm = mask = 0
    for piece in slices:
        if piece.mig is not None:
            if mask & piece.mig.mask:
                return f"{device.id}: MIG instances overlap"
            mask |= piece.mig.mask
        memory += piece.memory_mib
        sm += piece.sm_milli
    if memory > device.memory_mib:
        return f"{device.id}: {memory} MiB given of {device.memory_mib}"
    if sm > device.sms * 1000:
        return f"{device.id}: {sm} thousandths of SMs given of {device.sms * 1000}"
    return None


@dataclass(frozen=True, slots=True)
class Book:
    """What is left on one device: memory in MiB, thousandths of SMs, and the MIG slots taken as a mask.

    `holders` counts the slices; a device without any is idle.
    """

    device: Device
    free_mib: int
    free_sm_milli: int
    free_share: Fraction
    mask: int = 0
    holders: int = 0

    @classmethod
    def empty(cls, device: Device) -> "Book":
        """A device nobody holds a part of."""
        return cls(device, usable_mib(device), device.sms * 1000, Fraction(1))

    @property
    def idle(self) -> bool:
        """True when nobody holds a part."""
        return self.holders == 0

    @property
    def left_share(self) -> Fraction:
        """What people are told is free: nothing of a device in MIG mode whose slots are all taken, whatever the
        instances' memory adds up to.
        """
        if self.mask and not any(self.has_room_for_mig(profile.name) for profile in self.device.mig):
            return Fraction(0)
        return self.free_share

    def take(self, piece: Slice) -> "Book":
        """The book after `piece` is given. Raises ValueError when it does not fit: nothing is over-committed."""
        mig = piece.mig.mask if piece.mig else 0
        if self.mask & mig:
            raise ValueError(f"{self.device.id}: the MIG slots are taken")
        if self.device.mig:
            # An instance's memory and SMs are the vendor's figures; the slots are what must not overlap.
            return self._moved(piece, self.mask | mig, 1)
        if piece.memory_mib > self.free_mib or piece.sm_milli > self.free_sm_milli:
            raise ValueError(f"{self.device.id}: {piece.memory_mib} MiB asked, {self.free_mib} free")
        return self._moved(piece, 0, 1)

    def hold(self, piece: Slice) -> "Book":
        """The book with a piece that was given earlier, whatever the device has become since.

        A device may shrink while parts of it are held (a larger reserve, another driver): then less than nothing is
        free, and nothing more is given until enough comes back.
        """
        return self._moved(piece, self.mask | (piece.mig.mask if piece.mig else 0), 1)

    def give_back(self, piece: Slice) -> "Book":
        """The book after `piece` is returned."""
        return self._moved(piece, self.mask & ~(piece.mig.mask if piece.mig else 0), -1)

    def _moved(self, piece: Slice, mask: int, sign: int) -> "Book":
        return Book(
            self.device,
            self.free_mib - sign * piece.memory_mib,
            self.free_sm_milli - sign * piece.sm_milli,
            self.free_share - sign * piece.share,
            mask,
            self.holders + sign,
        )

    def has_room(self, share: Fraction) -> bool:
        """True when the device has room for a slice of `share` and is not cut by MIG."""
        device, part, of = self.device, share.numerator, share.denominator
        if device.mig or not device.healthy or (part < of and not device.divisible):
            return False
        if part * self.free_share.denominator > self.free_share.numerator * of:
            return False
        if part == of and self.holders:
            return False
        return (
            usable_mib(device) * part // of <= self.free_mib
            and device.sms * 1000 * part // of <= self.free_sm_milli
        )

    def room_for(self, share: Fraction) -> Slice | None:
        """A slice of `share` if the device has room for it and is not cut by MIG."""
        return cut(self.device, share) if self.has_room(share) else None

    def has_room_for_mig(self, profile: str) -> bool:
        """True when an instance of `profile` fits somewhere."""
        if not self.device.healthy:
            return False
        found = next((p for p in self.device.mig if p.name == profile), None)
        return found is not None and any(
            not self.mask & (((1 << found.size) - 1) << start) for start in found.placements
        )

    def room_for_mig(self, profile: str) -> Slice | None:
        """An instance of `profile` where it costs later requests least, if there is room.

        Least cost: the placement after which the most placements of all profiles remain possible; ties go to
        the highest start, as the driver itself fills from the end for small profiles.
        """
        found = next((p for p in self.device.mig if p.name == profile), None)
        if found is None or not self.device.healthy:
            return None
        best: tuple[int, int] | None = None
        for start in found.placements:
            mask = ((1 << found.size) - 1) << start
            if self.mask & mask:
                continue
            key = (_remaining(self.device, self.mask | mask), start)
            best = max(best, key) if best else key
        return cut_mig(self.device, found, best[1]) if best else None


def _remaining(device: Device, mask: int) -> int:
    """How many placements of any profile are still free under `mask`."""
    return sum(
        not mask & (((1 << profile.size) - 1) << start)
        for profile in device.mig
        for start in profile.placements
    )
