"""The lines of the logs: ids as fields, and no secret, whoever wrote it."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.api_keys import ApiKey
from service.logs import Line, LogFormat, fields, note


def line(format: LogFormat, message: str, *arguments: object, error: BaseException | None = None) -> str:
    traceback = (type(error), error, None) if error is not None else None
    record = logging.LogRecord("a.b", logging.WARNING, __file__, 1, message, arguments, traceback)
    return Line(format, worker="wrk_1").format(record)


def test_json_has_the_ids_of_what_is_being_done_as_fields():
    with fields(request="req_1", sweep=None):
        note(project="p")
        with fields(unit="unt_1"):
            inner = json.loads(line("json", "it has %d", 3))
        outer = json.loads(line("json", "x"))
    assert inner["message"] == "it has 3"
    assert (inner["level"], inner["logger"]) == ("WARNING", "a.b")
    ids = {"worker": "wrk_1", "request": "req_1", "project": "p", "unit": "unt_1"}
    assert {name: inner.get(name) for name in ids} == ids
    assert "sweep" not in inner
    assert "unit" not in outer
    assert "request" not in json.loads(line("json", "x"))


def test_a_line_for_people_has_them_too():
    with fields(unit="unt_1"):
        assert line("text", "x").endswith(" WARNING a.b x [worker=wrk_1 unit=unt_1]")


def test_threads_do_not_see_each_others_ids():
    with fields(unit="unt_1"), ThreadPoolExecutor(1) as pool:
        assert "unt_1" not in pool.submit(line, "text", "x").result()


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_strangers_text_is_one_line(format: LogFormat):
    assert len(line(format, "layer %s", "a\nb\r\x1b[31m\u2028c").splitlines()) == 1


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("how", ["{key}", "Authorization: Bearer {key}", "('authorization', b'Bearer abcdefgh123')"])
def test_no_key_is_in_a_line(format: LogFormat, how: str):
    key = ApiKey.generate()
    text = line(format, "got %s", how.format(key=key.text), error=ValueError(key.text))
    assert key.text[16:] not in text
    assert "abcdefgh123" not in text


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_password_of_a_url_is_in_a_line(format: LogFormat):
    text = line(
        format, "%s", "postgresql+psycopg://me:s3cret%2Fx@db:5432/q and redis://:s3cret@r/0 and http://h:80/a@b"
    )
    assert "s3cret" not in text
    assert "@db:5432/q" in text
    assert "http://h:80/a@b" in text
