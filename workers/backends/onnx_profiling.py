"""Times the kernels of ONNX graphs: ONNX Runtime's own profiler, several graphs in turn, warm-up left out."""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from service.domain.errors import Unavailable
from workers.backends.onnx_providers import CPU, CUDA, session_providers
from workers.backends.protocol import Array
from workers.models.onnx_libraries import register
from workers.models.private_folder import private_folder

MICROSECOND = 1e-6
KERNEL = "_kernel_time"
RUN = "model_run"
FEWEST_RUNS = 6
"""The fewest of which a median has a 95 % interval."""
LARGEST_INSIDE = "1024"
"""Bytes: larger initializers of the optimized graph are written beside it, and never read."""


@dataclass(frozen=True)
class Kernel:
    """A node of an optimized graph as it ran. ``seconds``: one for each run."""

    name: str
    op: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """What ran. ``wall``: seconds of each whole run, profiling included; ``optimized``: the graph that ran."""

    kernels: tuple[Kernel, ...]
    wall: tuple[float, ...]
    optimized: onnx.GraphProto


@dataclass(frozen=True)
class GraphToTime:
    """A file. ``integer_kernels``: Q/DQ become integer kernels where there are any; else each runs as it stands."""

    path: Path
    integer_kernels: bool = True


@dataclass(frozen=True)
class ProfileSettings:
    """``runs`` are counted, after ``warm_up`` that are not, of every graph.

    Past ``most_seconds`` no run is added beyond ``FEWEST_RUNS``. ``threads`` None: one for each processor of this
    process.
    """

    device: str = "cpu"
    runs: int = 30
    warm_up: int = 5
    most_seconds: float = 120.0
    threads: int | None = None
    libraries: tuple[Path, ...] = ()


def profiles(
    graphs: Mapping[str, GraphToTime], feeds: Mapping[str, Array], settings: ProfileSettings
) -> dict[str, Profile]:
    """Each graph's profile on one batch. Their runs alternate, so that a machine that slows down slows all alike.

    Raises Unavailable where the provider does not run, or ONNX Runtime tells no times of its GPU's kernels; the
    runtime's own errors where it cannot run a graph.
    """
    with private_folder() as folder:
        sessions = {
            key: _session(graph, folder / str(index), settings) for index, (key, graph) in enumerate(graphs.items())
        }
        started = time.monotonic()
        for index in range(settings.warm_up + settings.runs):
            late = time.monotonic() - started > settings.most_seconds
            if late and index >= settings.warm_up + FEWEST_RUNS:
                break
            for session in sessions.values():
                session.run(None, dict(feeds))
        return {
            key: _profile(session, folder / str(index), settings)
            for index, (key, session) in enumerate(sessions.items())
        }


def _session(graph: GraphToTime, folder: Path, settings: ProfileSettings) -> Any:
    import onnxruntime

    folder.mkdir()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    entries = {
        "session.disable_quant_qdq": "0" if graph.integer_kernels else "1",
        "session.optimized_model_external_initializers_file_name": "optimized.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": LARGEST_INSIDE,
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    register(options, settings.libraries)
    wanted = CUDA if settings.device.startswith("cuda") else CPU
    providers = session_providers(wanted, settings.device)
    session = onnxruntime.InferenceSession(str(graph.path), options, providers=providers)
    if wanted not in session.get_providers():
        raise Unavailable(f"ONNX Runtime cannot use {wanted} on this machine")
    return session


def _profile(session: Any, folder: Path, settings: ProfileSettings) -> Profile:
    events = json.loads(Path(session.end_profiling()).read_text())
    optimized = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
    runs = runs_of(events)[settings.warm_up :]
    first = runs[0]
    kernels = tuple(
        Kernel(name, kernel.op, tuple(run.kernels[name].seconds if name in run.kernels else 0.0 for run in runs))
        for name, kernel in first.kernels.items()
    )
    return Profile(kernels, tuple(run.wall for run in runs), optimized)


@dataclass
class Timed:
    """A node within one run. ``seconds`` add up where it runs several times."""

    op: str
    seconds: float


@dataclass(frozen=True)
class Run:
    """One run: seconds in all, and of each node by name."""

    wall: float
    kernels: Mapping[str, Timed]


def runs_of(events: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The runs in a profile of ONNX Runtime, in order.

    On the CPU a node's event is its time. On a GPU it is only that of the launch: there the times are those of the
    GPU's own events, each of which names the node's event (``parent_name``). Raises Unavailable where there are none.
    """
    events = list(events)
    on_gpu = {_node(event["args"]["parent_name"]) for event in events if _is_gpu_kernel(event)}
    if not on_gpu and any(_provider(event) == CUDA for event in events):
        raise Unavailable("this build of ONNX Runtime does not tell how long the GPU's kernels took")
    runs: list[Run] = []
    current: dict[str, Timed] = {}
    for event in _by_time(events):
        if event["name"] == RUN:
            runs.append(Run(event["dur"] * MICROSECOND, current))
            current = {}
        elif _is_gpu_kernel(event):
            current.setdefault(_node(event["args"]["parent_name"]), Timed(event["args"].get("op_name", ""), 0.0))
            current[_node(event["args"]["parent_name"])].seconds += event["dur"] * MICROSECOND
        elif event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            timed = current.setdefault(_node(event["name"]), Timed(event["args"]["op_name"], 0.0))
            if _provider(event) != CUDA:
                timed.seconds += event["dur"] * MICROSECOND
    return runs


def _by_time(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A run's own event behind all that lies in it; the file has it there on a CPU."""
    return sorted(events, key=lambda event: event.get("ts", 0) + (event.get("dur", 0) if event["name"] == RUN else 0))


def _is_gpu_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Kernel" and "parent_name" in event.get("args", {})


def _node(name: str) -> str:
    return name.removesuffix(KERNEL)


def _provider(event: Mapping[str, Any]) -> str | None:
    found = event.get("args", {}).get("provider")
    return str(found) if found is not None else None
