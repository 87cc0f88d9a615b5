"""Files through HTTP, kept in a folder or in a bucket: the same answers, and 503 while the bucket is out of reach."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.api.streamed import Unsatisfiable, requested_span
from service.app import create_app
from service.domain.states import SweepState
from service.settings import Settings
from service.store.blobs import Span
from service.store.database import Database
from service.store.open_blobs import open_blobs
from service.store.tables import ArtifactRow, DatasetRow, ModelRow, SweepRow
from tests.cut_line import Line, cut_line
from tests.s3_server import BUCKET, S3Server
from tests.service.api.conftest import CountingHints, Service, assert_problem, client_of
from tests.service.api.files import onnx_bytes
from tests.service.api.server import serving

CONTENT = bytes(range(256)) * 4096
TAG_OF_ANOTHER = '"' + "0" * 64 + '"'


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """One kind of database is enough here."""
    return f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'test.db')}"


@pytest.fixture
def line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with cut_line(s3.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", line.url)
        yield line


def made(settings: Settings, database: Database) -> Iterator[Service]:
    blobs, hints = open_blobs(settings), CountingHints(settings)
    app = create_app(settings, database, blobs, hints)
    with client_of(app, settings) as http:
        yield Service(http, settings, database, blobs, hints)  # type: ignore[arg-type]


@pytest.fixture(params=["folder", "s3"])
def service(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Iterator[Service]:
    url = None
    if request.param == "s3":
        request.getfixturevalue("s3")
        url = f"s3://{BUCKET}/files"
    settings = Settings(data_dir=tmp_path, database_url=str(database.url), blob_url=url, max_model_bytes=50_000)
    yield from made(settings, database)


@pytest.fixture
def far(line: Line, tmp_path: Path, database: Database) -> Iterator[Service]:
    """A service whose files lie in a bucket at the other end of a line."""
    settings = Settings(data_dir=tmp_path, database_url=str(database.url), blob_url=f"s3://{BUCKET}/files")
    yield from made(settings, database)


def artifact(service: Service, name: str = "mixed.onnx", content: bytes = CONTENT) -> str:
    """The path of a file of a sweep that succeeded."""
    sweep = service.sweep().json()["id"]
    blob = service.blobs.put(content)
    service.set_row(SweepRow, sweep, state=SweepState.SUCCEEDED)
    with service.database.write() as session:
        row = ArtifactRow(sweep_id=sweep, name=name, media_type="application/octet-stream")
        row.sha256, row.size = blob.sha256, blob.size
        session.add(row)
    return f"/v1/sweeps/{sweep}/artifacts/{name}"


def test_an_upload_is_stored_under_its_hash(service: Service) -> None:
    model = service.http.post("/v1/models?name=net", content=onnx_bytes()).json()
    assert service.blobs.read(model["sha256"]) == onnx_bytes()
    assert service.blobs.discard_unfinished(float("inf")) == 0


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"no model", 422, "not-a-model"), (b"x" * 50_001, 413, "too-large"), (b"", 422, "rejected-file")],
    ids=["not a model", "too large", "empty"],
)
def test_an_upload_that_is_refused_never_reaches_the_store(
    service: Service, content: bytes, status: int, code: str
) -> None:
    assert_problem(service.http.post("/v1/models?name=net", content=content), status, code)
    assert service.blobs.written_before(float("inf")) == []
    assert service.blobs.discard_unfinished(float("inf")) == 0


def test_a_file_is_sent_whole_with_its_size_and_tag(service: Service) -> None:
    response = service.http.get(artifact(service))
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="mixed.onnx"'


def test_an_empty_file_is_sent(service: Service) -> None:
    response = service.http.get(artifact(service, content=b""))
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


def test_a_name_that_is_not_plain_is_kept_in_the_download(service: Service) -> None:
    disposition = service.http.get(artifact(service, name="é \"'.csv")).headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''%C3%A9%20%22%27.csv"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=1000000-", 1_000_000, None), ("bytes=-7", -7, None), ("bytes=5-99999999", 5, None)],
)
def test_a_part_is_sent_where_it_is_asked_for(service: Service, asked: str, start: int, stop: int | None) -> None:
    response = service.http.get(artifact(service), headers={"Range": asked})
    expected = CONTENT[start:stop]
    first = start % len(CONTENT)
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(len(expected))


def test_a_part_behind_the_end_is_a_problem_that_tells_the_size(service: Service) -> None:
    response = service.http.get(artifact(service), headers={"Range": f"bytes={len(CONTENT)}-"})
    assert_problem(response, 416, "range-not-satisfiable", f"which has {len(CONTENT)} bytes")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_a_download_goes_on_only_with_the_same_file(service: Service) -> None:
    path = artifact(service)
    tag = service.http.get(path).headers["etag"]
    for if_range, status in ((tag, 206), (TAG_OF_ANOTHER, 200)):
        headers = {"Range": "bytes=4-", "If-Range": if_range}
        assert service.http.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-4", Span(2, 5)),
        ("bytes = 2 - 4", Span(2, 5)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=9-9", Span(9, 10)),
        ("bytes=2-10", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("lines=1-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=٣-", None),
    ],
)
def test_a_range_header_names_bytes_of_a_file_of_ten(header: str | None, span: Span | None) -> None:
    assert requested_span(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        requested_span(header, 10)


def test_a_caller_that_goes_away_leaves_no_file_open(service: Service, tmp_path: Path) -> None:
    path = artifact(service, content=os.urandom(2**20) * 32)
    before = open_files()
    with serving(service.http.app) as port:  # type: ignore[arg-type]
        headers = {"Authorization": service.http.headers["authorization"]}
        with httpx.stream("GET", f"http://127.0.0.1:{port}{path}", headers=headers) as response:
            assert response.status_code == 200
            next(response.iter_raw(1000))
        deadline = threading.Event()
        for _ in range(100):
            if open_files() <= before:
                break
            deadline.wait(0.05)
    assert open_files() <= before


def open_files() -> set[str]:
    """Files that this process holds open in the store's folder, and sockets are left aside."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(each)
        except OSError:
            continue
        if "/blobs/" in target or "/blob-cache/" in target:
            found.add(target)
    return found


def test_readiness_says_whether_the_files_can_be_reached(far: Service, line: Line) -> None:
    assert far.http.get("/readyz").json()["files"] == "ok"
    line.cut()
    response = far.http.get("/readyz")
    assert_problem(response, 503, "storage-unavailable", "does not answer")
    assert response.headers["retry-after"] == "5"
    assert far.http.get("/healthz").status_code == 200
    line.mend()
    assert far.http.get("/readyz").status_code == 200


def test_a_folder_that_is_gone_is_not_ready(tmp_path: Path, database: Database) -> None:
    settings = Settings(data_dir=tmp_path, database_url=str(database.url), blob_url=None)
    (service,) = made(settings, database)
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    assert_problem(service.http.get("/readyz"), 503, "storage-unavailable", "folder of the files is not there")


def test_an_upload_while_the_network_is_cut_is_503_and_leaves_nothing(far: Service, line: Line, s3: S3Server) -> None:
    line.cut()
    response = far.http.post("/v1/models?name=net", content=onnx_bytes())
    assert_problem(response, 503, "storage-unavailable", "does not answer; try again")
    assert response.headers["retry-after"] == "5"
    with far.database.read() as session:
        assert session.query(ModelRow).count() == 0
    assert s3.objects() == []
    line.mend()
    assert far.http.post("/v1/models?name=net", content=onnx_bytes()).status_code == 201


def test_a_download_while_the_network_is_cut_is_503_and_works_afterwards(far: Service, line: Line) -> None:
    path = artifact(far)
    line.cut()
    response = far.http.get(path)
    assert_problem(response, 503, "storage-unavailable")
    assert response.headers["retry-after"] == "5"
    line.mend()
    assert far.http.get(path).content == CONTENT


def test_deleting_while_the_network_is_cut_deletes_the_row_and_later_the_file(far: Service, line: Line) -> None:
    from service.store.leftovers import remove_leftovers

    dataset = far.dataset()
    line.cut()
    assert far.http.delete(f"/v1/datasets/{dataset}").status_code == 204
    with far.database.read() as session:
        assert session.query(DatasetRow).count() == 0
    line.mend()
    assert remove_leftovers(far.database, far.blobs, older_than=-60) == 1


def test_the_service_starts_while_the_network_is_cut(line: Line, tmp_path: Path, database: Database) -> None:
    line.cut()
    settings = Settings(data_dir=tmp_path, database_url=str(database.url), blob_url=f"s3://{BUCKET}")
    with TestClient(create_app(settings, database), base_url="http://127.0.0.1:8080") as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 503
