"""A small client of the REST API: uploads stream from disk, and problems become exceptions."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator

from service.domain.errors import QuantsieveError
from service.domain.results import Decision, LayerResult
from service.domain.settings import Preprocessing, SweepSettings
from service.domain.states import Phase, ResourceState, SweepState

PIECE_BYTES = 2**20
POLL_SECONDS = 0.5
LAYERS_CSV = "layers.csv"
FALLBACK_LAYERS = "fallback_layers.json"


class Message(BaseModel):
    """A warning of a sweep: a stable code, and a sentence for people."""

    code: str
    message: str


def _sentence(problem: Any) -> Any:
    return problem["message"] if isinstance(problem, dict) else problem


class Resource(BaseModel):
    """An uploaded model or evaluation set, as far as a caller needs it."""

    id: str
    name: str
    state: ResourceState
    problem: str | None
    info: dict[str, Any]


class Sweep(BaseModel):
    """A sweep, as far as a caller needs it. ``progress`` goes from 0 to 1."""

    id: str
    state: SweepState
    phase: Phase
    progress: float
    eta_seconds: float | None
    problem: Annotated[str | None, BeforeValidator(_sentence)]
    warnings: list[Message]
    settings: SweepSettings
    backend: str
    decision: Decision | None


View = TypeVar("View", Resource, Sweep)


class ApiProblem(QuantsieveError):
    """The service refused a request. ``code`` is the stable name of the problem, ``field`` what it is about, if one."""

    def __init__(self, status: int, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.status, self.detail, self.field = status, detail, field


class Client:
    """Talks to the service at ``base_url``. Use it in a ``with`` block, or close it."""

    def __init__(self, base_url: str, *, timeout: float = 60.0) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload_model(self, path: Path, name: str | None = None) -> Resource:
        """Upload a model; the resource, which may still be checking. Raises ApiProblem."""
        return self._upload("/v1/models", path, {"name": name or path.name})

    def upload_dataset(
        self, path: Path, name: str | None = None, preprocessing: Preprocessing | None = None
    ) -> Resource:
        """Upload an evaluation set; the resource, which may still be checking. Raises ApiProblem."""
        parameters = {"name": name or path.name}
        if preprocessing is not None and not preprocessing.is_identity:
            parameters["preprocessing"] = preprocessing.model_dump_json(exclude_none=True)
        return self._upload("/v1/datasets", path, parameters)

    def _upload(self, url: str, path: Path, parameters: Mapping[str, str]) -> Resource:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        return self._get(Resource, "POST", url, params=parameters, content=_pieces(path), headers=headers)

    def wait_ready(self, resource: Resource, *, timeout: float | None = None) -> Resource:
        """The model or evaluation set once it is checked; raises ApiProblem where it was rejected, or TimeoutError."""
        noun = "models" if resource.id.startswith("mdl_") else "datasets"
        deadline = _deadline(timeout)
        while resource.state is ResourceState.CHECKING:
            _pause(deadline, f"{resource.id} is still being checked")
            resource = self._get(Resource, "GET", f"/v1/{noun}/{resource.id}")
        if resource.state is ResourceState.REJECTED:
            raise ApiProblem(422, "rejected-file", f"{resource.name}: {resource.problem}")
        return resource

    def create_sweep(self, settings: SweepSettings, *, idempotency_key: str | None = None) -> Sweep:
        """Ask for a sweep. Raises ApiProblem."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._get(Sweep, "POST", "/v1/sweeps", json=settings.model_dump(mode="json"), headers=headers)

    def sweep(self, sweep_id: str) -> Sweep:
        """Where a sweep stands."""
        return self._get(Sweep, "GET", f"/v1/sweeps/{sweep_id}")

    def wait(
        self, sweep_id: str, on_progress: Callable[[Sweep], None] | None = None, *, timeout: float | None = None
    ) -> Sweep:
        """The sweep once it has ended, however it did; ``on_progress`` sees each look at it. Raises TimeoutError."""
        deadline = _deadline(timeout)
        while True:
            sweep = self.sweep(sweep_id)
            if on_progress is not None:
                on_progress(sweep)
            if sweep.state.terminal:
                return sweep
            _pause(deadline, f"sweep {sweep_id} has not ended")

    def layers(self, sweep_id: str) -> list[LayerResult]:
        """The layer table, partial while the sweep runs."""
        rows = self._send("GET", f"/v1/sweeps/{sweep_id}/layers").json()["layers"]
        return [LayerResult.model_validate(row) for row in rows]

    def report(self, sweep_id: str, name: str) -> bytes:
        """A file of the report by its name: report.json, report.html, layers.csv, fallback_layers.json or another."""
        base = f"/v1/sweeps/{sweep_id}"
        if name == LAYERS_CSV:
            return self._send("GET", f"{base}/layers", headers={"Accept": "text/csv"}).content
        if name == FALLBACK_LAYERS:
            return self._send("GET", f"{base}/fallback-layers").content
        return self._send("GET", f"{base}/artifacts/{quote(name, safe='')}").content

    def cancel(self, sweep_id: str) -> Sweep:
        """Cancel a sweep; one that has ended stays as it is."""
        return self._get(Sweep, "POST", f"/v1/sweeps/{sweep_id}/cancel")

    def _get(self, kind: type[View], method: str, url: str, **arguments: Any) -> View:
        return kind.model_validate(self._send(method, url, **arguments).json())

    def _send(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, url, **arguments)
        except httpx.TransportError as error:
            detail = f"no answer from {self._http.base_url}: {error}"
            raise ApiProblem(503, "no-connection", detail) from error
        if response.is_error:
            raise _problem(response)
        return response


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _problem(response: httpx.Response) -> ApiProblem:
    try:
        document = response.json()
        code = str(document["type"]).rpartition(":")[2]
        errors = document.get("errors") or [{}]
        return ApiProblem(response.status_code, code, str(document["detail"]), errors[0].get("field"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiProblem(response.status_code, "http-error", f"{response.url} answered {response.status_code}")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _pause(deadline: float | None, message: str) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise TimeoutError(message)
    time.sleep(POLL_SECONDS)
