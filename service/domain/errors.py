"""The exceptions of quantsieve, by who can put them right.

QuantsieveError
├── InvalidInput        the caller: a field of the request holds the wrong value
│   └── RejectedFile    the caller: an uploaded model or evaluation set cannot be used
├── NotFound            the caller: no such resource
├── Conflict            the caller: the resource is not in a state that allows this (yet)
├── QuotaExceeded       the caller, or the operator: the project has all that it may have
├── Unavailable         the operator: nothing here can do that now
├── LayerFailure        nobody: this one layer cannot be measured; the sweep goes on without it
├── SweepFailure        the caller: the whole sweep cannot go on, and why
├── SweepCancelled      the caller asked for it
└── LeaseLost           our own machinery: another worker owns the unit now; drop the work
"""


def first_line(error: BaseException, *, most: int = 200) -> str:
    """What somebody else's exception says, short enough for a sentence of ours or a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:most]


class QuantsieveError(Exception):
    """Base of all. ``code`` is the stable kebab-case name of the problem; ``str(error)``, one sentence for a person."""

    code = "internal-error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInput(QuantsieveError):
    """A field holds a wrong value. The message names the field, the value and what would be right."""

    code = "invalid-input"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class RejectedFile(InvalidInput):
    """An uploaded file cannot be used: what is wrong with it and what would be right."""

    code = "rejected-file"


class NotFound(QuantsieveError):
    """No such resource (or not one that this caller may see)."""

    code = "not-found"


class Conflict(QuantsieveError):
    """The resource is not in a state that allows the request."""

    code = "conflict"


class QuotaExceeded(QuantsieveError):
    """A project has as much as it may have; the message says how much that is, and how much is allowed."""

    code = "quota-exceeded"


class Unavailable(QuantsieveError):
    """Nothing that is running can do this now."""

    code = "unavailable"


class LayerFailure(QuantsieveError):
    """One layer cannot be quantized or measured; the message is the reason that the table shows."""

    code = "layer-failed"

    def __init__(self, layer_id: str, reason: str) -> None:
        super().__init__(reason)
        self.layer_id = layer_id


class SweepFailure(QuantsieveError):
    """The sweep as a whole cannot go on."""

    code = "sweep-failed"


class SweepCancelled(QuantsieveError):
    """The caller cancelled the sweep; the worker stops at the next shard or variant."""

    code = "sweep-cancelled"


class LeaseLost(QuantsieveError):
    """The lease on a work unit ran out or was taken over; nothing of it may be written any more."""

    code = "lease-lost"
