"""A small client of the REST API: uploads stream from disk, and problems become exceptions."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from service.domain.conversion import ConversionSettings
from service.domain.errors import QuantsieveError
from service.domain.selections import SelectionQuestion
from service.domain.settings import Preprocessing, SweepSettings
from service.domain.states import ConversionState, ResourceState, SelectionState, SweepState

PIECE_BYTES = 2**20
FIRST_POLL_SECONDS, POLL_SECONDS = 0.05, 0.5
REPORTS = {"json": "report.json", "html": "report.html", "fallback-layers": "fallback-layers"}
Document = dict[str, Any]
"""A resource as the API shows it; its schema is in the API's OpenAPI document."""
ReportKind = Literal["json", "html", "fallback-layers"]


class ApiProblem(QuantsieveError):
    """The service refused a request. ``code`` is the stable name of the problem, ``field`` what it is about, if one."""

    def __init__(self, status: int, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.status, self.detail, self.field = status, detail, field


class Client:
    """Talks to the service at ``base_url``, as the holder of ``key``. Use it in a ``with`` block, or close it."""

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload_model(self, path: Path, name: str | None = None) -> Document:
        """Upload a model; the resource, which may still be checking. Raises ApiProblem."""
        return self._upload("/v1/models", path, {"name": name or path.name})

    def upload_dataset(
        self, path: Path, name: str | None = None, preprocessing: Preprocessing | None = None
    ) -> Document:
        """Upload an evaluation set; the resource, which may still be checking. Raises ApiProblem."""
        parameters = {"name": name or path.name}
        if preprocessing is not None and not preprocessing.is_identity:
            parameters["preprocessing"] = preprocessing.model_dump_json(exclude_none=True)
        return self._upload("/v1/datasets", path, parameters)

    def upload_calibration(self, path: Path, name: str | None = None) -> Document:
        """Upload a calibration cache of TensorRT; the resource, ready for use. Raises ApiProblem."""
        return self._upload("/v1/calibrations", path, {"name": name or path.name})

    def _upload(self, url: str, path: Path, parameters: Mapping[str, str]) -> Document:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        return self._json("POST", url, params=parameters, content=_pieces(path), headers=headers)

    def wait_ready(self, resource: Document, *, timeout: float | None = None) -> Document:
        """The model or evaluation set once it is checked; raises ApiProblem where it was rejected, or TimeoutError."""
        noun = "models" if resource["id"].startswith("mdl_") else "datasets"
        pauses = _Pauses(timeout)
        while resource["state"] == ResourceState.CHECKING:
            pauses.wait(f"{resource['id']} is still being checked")
            resource = self._json("GET", f"/v1/{noun}/{resource['id']}")
        if resource["state"] == ResourceState.REJECTED:
            raise ApiProblem(422, "rejected-file", f"{resource['name']}: {resource['problem']}")
        return resource

    def create_sweep(self, settings: SweepSettings, *, idempotency_key: str | None = None) -> Document:
        """Ask for a sweep. Raises ApiProblem."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/v1/sweeps", json=settings.model_dump(mode="json"), headers=headers)

    def sweep(self, sweep_id: str) -> Document:
        """Where a sweep stands."""
        return self._json("GET", f"/v1/sweeps/{sweep_id}")

    def events(self, sweep_id: str) -> Iterator[Document]:
        """The sweep each time that it has changed, until it has ended; goes on after a connection that was cut.

        Raises ApiProblem where the service refuses, or cannot be reached again.
        """
        last: str | None = None
        while True:
            headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
            for event_id, sweep in self._stream(f"/v1/sweeps/{sweep_id}/events", headers):
                last = event_id
                yield sweep
                if SweepState(sweep["state"]).terminal:
                    return
            time.sleep(POLL_SECONDS)

    def _stream(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[str, Document]]:
        """(id, data) of each event; a connection that is cut after it was made only ends them."""
        connected = False
        try:
            with self._http.stream("GET", url, headers=headers) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                connected = True
                fields: dict[str, str] = {}
                for line in response.iter_lines():
                    name, _, value = line.partition(":")
                    if line:
                        fields[name] = value.removeprefix(" ")
                    elif "data" in fields:
                        yield fields["id"], json.loads(fields["data"])
                        fields = {}
        except httpx.TransportError as error:
            if not connected:
                raise self._unreachable(error) from error

    def wait(
        self, sweep_id: str, on_progress: Callable[[Document], None] | None = None, *, timeout: float | None = None
    ) -> Document:
        """The sweep once it has ended, however it did; ``on_progress`` sees each look at it. Raises TimeoutError."""
        pauses = _Pauses(timeout)
        while True:
            sweep = self.sweep(sweep_id)
            if on_progress is not None:
                on_progress(sweep)
            if SweepState(sweep["state"]).terminal:
                return sweep
            pauses.wait(f"sweep {sweep_id} has not ended")

    def layers(self, sweep_id: str) -> Document:
        """The layer table (``layers``) and the other scores, partial while the sweep runs."""
        return self._json("GET", f"/v1/sweeps/{sweep_id}/layers")

    def layers_csv(self, sweep_id: str) -> str:
        """The layer table as CSV."""
        return self._send("GET", f"/v1/sweeps/{sweep_id}/layers", headers={"Accept": "text/csv"}).text

    def report(self, sweep_id: str, kind: ReportKind = "json") -> bytes:
        """The report, or the fallback layers."""
        return self._send("GET", f"/v1/sweeps/{sweep_id}/{REPORTS[kind]}").content

    def artifacts(self, sweep_id: str) -> list[str]:
        """The names of all files of a sweep that has succeeded: the reports, and what other tools take."""
        listed = self._json("GET", f"/v1/sweeps/{sweep_id}/artifacts")["items"]
        return [str(each["name"]) for each in listed]

    def artifact(self, sweep_id: str, name: str) -> bytes:
        """One of these files."""
        return self._send("GET", f"/v1/sweeps/{sweep_id}/artifacts/{name}").content

    def select(self, sweep_id: str, question: SelectionQuestion) -> Document:
        """Decide again from what a decided sweep measured; at once, an estimate where ``state`` is predicted.

        With ``verify`` an estimate is then measured (``wait_selected``).
        """
        body = question.model_dump(mode="json", exclude_unset=True)
        return self._json("POST", f"/v1/sweeps/{sweep_id}/selections", json=body)

    def verify_selection(self, selection: Document) -> Document:
        """Have lists measured for a selection that is predicted only. Raises ApiProblem."""
        return self._json("POST", selection["links"]["verify"])

    def cancel_selection(self, selection: Document) -> Document:
        """Cancel the measuring; a selection that nothing is measured for stays as it is."""
        return self._json("POST", selection["links"]["cancel"])

    def wait_selected(
        self,
        selection: Document,
        on_progress: Callable[[Document], None] | None = None,
        *,
        timeout: float | None = None,
    ) -> Document:
        """The selection once nothing is measured for it any more, however that ended. Raises TimeoutError."""
        pauses = _Pauses(timeout)
        while True:
            if on_progress is not None:
                on_progress(selection)
            if not SelectionState(selection["state"]).working:
                return selection
            pauses.wait(f"selection {selection['id']} has not ended")
            selection = self._json("GET", selection["links"]["self"])

    def selections(self, sweep_id: str) -> list[Document]:
        """All selections of a sweep side by side, the oldest first."""
        items: list[Document] = self._json("GET", f"/v1/sweeps/{sweep_id}/selections")["items"]
        return items

    def compare(self, *sweep_ids: str) -> Document:
        """How far the layer tables of several sweeps agree, pair by pair."""
        return self._json("GET", "/v1/sweeps/compare", params={"ids": ",".join(sweep_ids)})

    def cancel(self, sweep_id: str) -> Document:
        """Cancel a sweep; one that has ended stays as it is."""
        return self._json("POST", f"/v1/sweeps/{sweep_id}/cancel")

    def create_conversion(self, settings: ConversionSettings) -> Document:
        """Ask for a conversion between a calibration cache and Q/DQ. Raises ApiProblem."""
        return self._json("POST", "/v1/conversions", json=settings.model_dump(mode="json", exclude_none=True))

    def wait_converted(self, conversion: Document, *, timeout: float | None = None) -> Document:
        """The conversion once it has succeeded; raises ApiProblem where it failed, or TimeoutError."""
        pauses = _Pauses(timeout)
        while not ConversionState(conversion["state"]).terminal:
            pauses.wait(f"conversion {conversion['id']} has not ended")
            conversion = self._json("GET", f"/v1/conversions/{conversion['id']}")
        problem = conversion["problem"]
        if problem is not None:
            raise ApiProblem(409, problem["code"], problem["message"])
        return conversion

    def conversion_file(self, conversion_id: str, name: str) -> bytes:
        """One of the files of a conversion that has succeeded; its ``files`` name them."""
        return self._send("GET", f"/v1/conversions/{conversion_id}/files/{name}").content

    def _json(self, method: str, url: str, **arguments: Any) -> Document:
        document: Document = self._send(method, url, **arguments).json()
        return document

    def _unreachable(self, error: httpx.TransportError) -> ApiProblem:
        return ApiProblem(503, "no-connection", f"no answer from {self._http.base_url}: {error}")

    def _send(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, url, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
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


class _Pauses:
    """Between looks at what is not done yet: short at first, since small things are done soon."""

    def __init__(self, timeout: float | None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._seconds = FIRST_POLL_SECONDS

    def wait(self, message: str) -> None:
        """Until the next look; raises TimeoutError with this message."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TimeoutError(message)
        time.sleep(self._seconds)
        self._seconds = min(POLL_SECONDS, 1.5 * self._seconds)
