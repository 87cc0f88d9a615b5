"""Whether two releases work together: what code and database say of themselves, and the reason why they do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROTOCOL = 1
"""Grows with each change of what API and workers tell each other through rows, files and messages."""


@dataclass(frozen=True)
class Spoken:
    """A schema revision and a protocol version; None where it is not known."""

    schema: str | None
    protocol: int | None

    @classmethod
    def of_versions(cls, versions: Mapping[str, Any]) -> "Spoken":
        """What a worker says among its versions."""
        protocol = versions.get("protocol")
        return cls(versions.get("schema"), int(protocol) if protocol is not None else None)

    def versions(self) -> dict[str, str]:
        """The same for a worker's heartbeat."""
        return {"schema": str(self.schema), "protocol": str(self.protocol)}


def skew(code: Spoken, installed: Spoken) -> str | None:
    """Why code may not work on an installation; None where nothing that both tell differs."""
    differences = []
    if code.schema is not None and installed.schema is not None and code.schema != installed.schema:
        differences.append(f"the code is for schema {code.schema}, and the database is at {installed.schema}")
    if code.protocol is not None and installed.protocol is not None and code.protocol != installed.protocol:
        differences.append(f"the code speaks protocol {code.protocol}, and the API {installed.protocol}")
    if not differences:
        return None
    return f"version skew detected and refused: {'; '.join(differences)}; run the same release everywhere"
