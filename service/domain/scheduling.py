"""Who does the work of a sweep, and how soon: its priority, the device it asks for, and the queue that follows."""

from enum import StrEnum


class Priority(StrEnum):
    """A sweep's share of the workers beside other sweeps of its project. What is low waits longer, not for ever."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def weight(self) -> int:
        """The share, as a number to be compared."""
        return {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}[self]


class DeviceKind(StrEnum):
    """What a sweep runs on: one kind of device, or any that its runtime has."""

    ANY = "any"
    CPU = "cpu"
    CUDA = "cuda"

    @classmethod
    def of(cls, device: str) -> "DeviceKind":
        """The kind of a device such as ``cpu`` or ``cuda:0``."""
        return cls(device.partition(":")[0])


def queue_of(backend: str, device: DeviceKind = DeviceKind.ANY) -> str:
    """The queue of what a backend measures on such a device: ``torch`` where any will do, else e.g. ``torch-cuda``."""
    return backend if device is DeviceKind.ANY else f"{backend}-{device}"
