"""For whom something is done: a project, and how much it may have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that a project may have: sweeps that have not ended, work units that wait or run, bytes of files."""

    open_sweeps: int
    queued_units: int
    stored_bytes: int


@dataclass(frozen=True)
class Tenant:
    """A project, with the limits of projects that have none of their own."""

    project_id: str
    limits: Limits
