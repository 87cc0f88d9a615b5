"""What computes: the worker's machine, device and versions."""

import os
import platform
import socket
from typing import Any

from service import __version__
from service.domain.settings import BackendName
from workers.backends.onnx_providers import provider_of
from workers.capabilities import capability_of
from workers.sweep.job import Job


def environment_of(job: Job) -> dict[str, Any]:
    """Of this worker, for the backend of the sweep."""
    capability = capability_of(BackendName(job.backend))
    of_onnxruntime = job.backend == BackendName.ONNXRUNTIME
    return {
        "backend": job.backend,
        "device": job.device,
        "provider": provider_of(job.device, job.open_settings.gpu_provider) if of_onnxruntime else None,
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "versions": {"quantsieve": __version__, "python": platform.python_version(), **capability.versions},
    }
