"""Calibration caches: stored once, described, and refused with the line that is wrong."""

import pytest

from service.store.tables import CalibrationRow
from tests.real_data import FOLDER, needs_data
from tests.service.api.conftest import Service, assert_problem

REFUSED = "bad-calibration-cache"
HEADER = b"TRT-8510-MinMaxCalibration\n"
CACHE = HEADER + b"x: 3caa54fc\n(Unnamed Layer* 8) [Constant]_output: 39137939\nlost: 7f800000\n"

BAD = {
    "empty": (b"", "rejected-file", "empty"),
    "another file": (b"\x08\x07\x12\x07pytorch", REFUSED, "line 1: "),
    "an unknown algorithm": (
        b"TRT-8510-GuessCalibration\nx: 3caa54fc\n",
        REFUSED,
        "'GuessCalibration'",
    ),
    "too few digits": (
        HEADER + b"x: 3caa54fc\ny: 3caa\n",
        REFUSED,
        "line 3: '3caa' is not 8 hex digits",
    ),
    "cut off": (HEADER + b"x: 3caa54fc\ny: 3caa54fc", REFUSED, "line 3: it has no line feed"),
    "no entry": (HEADER, REFUSED, "none of the cache's 0 entries"),
    "no usable entry": (HEADER + b"x: 00000000\n", REFUSED, "none of the cache's 1 entries"),
}


def upload(service: Service, content: bytes = CACHE, name: str = "net.cache"):
    return service.http.post("/v1/calibrations", params={"name": name}, content=content)


def test_a_cache_is_stored_once_and_described(service: Service):
    first = upload(service)
    assert first.status_code == 201
    made = first.json()
    assert first.headers["location"] == f"/v1/calibrations/{made['id']}"
    assert made["info"] == {
        "algorithm": "MinMaxCalibration", "tensorrt_version": "8510", "entries": 3, "unusable": 1
    }  # fmt: skip
    assert service.blobs.read(made["sha256"]) == CACHE
    again = upload(service, name="other")
    assert again.status_code == 200
    assert again.json() == made == service.http.get(first.headers["location"]).json()
    assert service.hints.published == []


@needs_data
@pytest.mark.data
def test_real_caches_are_taken(service: Service):
    for file in sorted((FOLDER / "tensorrt_caches").glob("*.cache")):
        info = upload(service, file.read_bytes(), file.name).json()["info"]
        assert info["entries"] == len(file.read_bytes().splitlines()) - 1
        assert file.read_bytes().startswith(f"TRT-{info['tensorrt_version']}-{info['algorithm']}\n".encode())


@pytest.mark.parametrize(("content", "code", "words"), BAD.values(), ids=BAD)
def test_a_bad_cache_is_refused_with_the_line_and_leaves_nothing(
    service: Service, content: bytes, code: str, words: str
):
    assert_problem(upload(service, content), 422, code, words)
    service.assert_nothing_left()


def test_a_cache_beyond_the_limit_is_too_large(service: Service):
    assert_problem(upload(service, HEADER + b"x: 3caa54fc\n" * 4000), 413, "too-large")
    service.assert_nothing_left()


def test_lists_go_page_by_page_newest_first(service: Service):
    ids = [upload(service, HEADER + f"x{number}: 3caa54fc\n".encode()).json()["id"] for number in range(3)]
    first = service.http.get("/v1/calibrations?limit=2").json()
    rest = service.http.get("/v1/calibrations", params={"cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == ids[::-1]


@pytest.mark.parametrize("unknown", ["x", "cal_000000000000", "a%00b"])
def test_what_is_not_there_is_404(service: Service, unknown: str):
    for method in ("GET", "DELETE"):
        assert_problem(service.http.request(method, f"/v1/calibrations/{unknown}"), 404, "calibration-not-found")


def test_a_cache_that_nothing_uses_is_deleted(service: Service):
    made = upload(service).json()["id"]
    assert service.http.delete(f"/v1/calibrations/{made}").status_code == 204
    with service.database.read() as session:
        assert session.query(CalibrationRow).count() == 0
