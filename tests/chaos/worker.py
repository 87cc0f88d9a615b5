"""A worker for chaos: ``python -m tests.chaos.worker``. The product's own, but for four things.

It does not look at what the machine can run, which takes longer than a sweep. It repeats a hint after a second, and not
after ten. Of SQLite it sees a clock that can be jumped (``skewed``). And a model by the name of POISON kills the
process that measures it. The pool's child imports
this module under another name, which is why all this is done at the import.
"""

import os
import signal
from typing import Any

from tests.chaos import skewed

POISON = "poison"

skewed.install()


def kill_who_measures(job: Any) -> Any:
    """The phase of measuring, until a model by the name of POISON is met."""
    from workers.sweep import measure

    if job.model.name == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure.run(job)


def main() -> None:
    """Serve until asked to stop."""
    import workers.capabilities
    import workers.main
    import workers.reconciler
    from service.domain.settings import BackendName
    from workers.backends.protocol import Capability

    capability = Capability(BackendName.ONNXRUNTIME, True, ("cpu",), {})
    workers.capabilities.probe_in_child = lambda: [capability]
    workers.reconciler.HINT_AGE_SECONDS = 1.0
    workers.main.main([])


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    from service.domain.states import UnitKind
    from workers.sweep import runner

    runner.PHASES[UnitKind.MEASURE] = kill_who_measures
