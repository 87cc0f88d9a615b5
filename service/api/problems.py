"""Every error as an RFC 9457 problem document: the table from our error tree to HTTP, and nothing of the inside."""

import http
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.domain.errors import Conflict, InvalidInput, NotFound, QuantsieveError, QuotaExceeded, Unavailable
from service.domain.no_space import NoSpace
from service.store.database import AWAY, out_of_space

MEDIA_TYPE = "application/problem+json"
SHOWN_VALUE = 200
RETRY_AFTER_SECONDS = "5"

log = logging.getLogger(__name__)


class Forbidden(QuantsieveError):
    """The operator, or the rules against other web sites, do not allow the request."""

    code = "forbidden"


class Unauthorized(QuantsieveError):
    """The request names no caller that is known here."""

    code = "key-missing"


class TooManyRequests(QuantsieveError):
    """A key makes more requests than it may; ``seconds``: until the next one is taken."""

    code = "too-many-requests"

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class TooLarge(QuantsieveError):
    """The body is larger than the operator allows."""

    code = "too-large"


class BadRequest(QuantsieveError):
    """The request cannot be read."""

    code = "bad-request"


STATUS: Mapping[type[QuantsieveError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    QuotaExceeded: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    InvalidInput: 422,
    TooManyRequests: 429,
    Unavailable: 503,
}


class FieldError(BaseModel):
    """One field that holds a wrong value. ``field`` is its path, such as ``calibration.samples``."""

    field: str
    message: str
    value: Any = None


class Problem(BaseModel):
    """RFC 9457. ``type`` is stable; ``detail`` says what is wrong and what would be right."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an endpoint that answers these statuses with a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def schemas() -> dict[str, Any]:
    """The JSON schemas of a problem document, for the OpenAPI document."""
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**problem.pop("$defs"), "Problem": problem}


def problem_response(
    status: int, code: str, detail: str, *, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The problem document as a response."""
    title = http.HTTPStatus(status).phrase
    problem = Problem(
        type=f"urn:quantsieve:problem:{code}", title=title, status=status, detail=detail, errors=list(errors)
    )
    document = problem.model_dump(exclude=None if errors else {"errors"})
    # ASCII only: a value that came in may hold characters that UTF-8 does not know
    return Response(json.dumps(document), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(QuantsieveError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    for each in AWAY:
        app.add_exception_handler(each, _database)
    app.add_exception_handler(Exception, internal)


def response_of(error: QuantsieveError) -> Response:
    """The problem document of one of our errors."""
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    field = error.field if isinstance(error, InvalidInput) else None
    errors = [FieldError(field=field, message=error.message)] if field else []
    return problem_response(status, error.code, error.message, errors=errors, headers=_headers(error, status))


def _headers(error: QuantsieveError, status: int) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(math.ceil(error.seconds))}
    return {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 or error.code.endswith("-not-ready") else {}


def _ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, QuantsieveError)
    return response_of(error)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        why = found[0].get("ctx", {}).get("error", "")
        return problem_response(400, "undecodable-json", f"the body is not JSON: {why}")
    errors = [
        FieldError(field=_field(each["loc"]), message=each["msg"], value=_shown(each.get("input"))) for each in found
    ]
    detail = "; ".join(f"{each.field}: {each.message}" for each in errors)
    return problem_response(422, "invalid-input", detail, errors=errors)


def _field(location: Sequence[int | str]) -> str:
    # the first part says where in the request it stands: body, query, path, header
    return ".".join(str(part) for part in (location[1:] or location))


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "…"


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, error.headers
    if status == 400:
        return problem_response(400, "undecodable-json", "the body is not JSON in UTF-8", headers=headers)
    if status == 404:
        return problem_response(404, "no-such-path", f"there is nothing at {request.url.path}", headers=headers)
    if status == 405:
        detail = f"{request.method} is not possible at {request.url.path}"
        return problem_response(405, "method-not-allowed", detail, headers=headers)
    if status == 413:
        return problem_response(413, TooLarge.code, "the body is too large for this request", headers=headers)
    return problem_response(status, "http-error", str(error.detail), headers=headers)


def _gone(_request: Request, _error: Exception) -> Response:
    return problem_response(400, "client-disconnected", "the connection ended before the body did")


def _database(_request: Request, error: Exception) -> Response:
    return database_problem(error)


def database_problem(error: Exception) -> Response:
    """The problem document of a driver's error: the database does not answer."""
    log.error("the database failed: %s", error)
    if isinstance(error, DBAPIError) and out_of_space(error):
        return response_of(NoSpace("there is no space left for the database"))
    return response_of(Unavailable("the database does not answer; try again", code="database-unavailable"))


def internal(_request: Request, error: Exception) -> Response:
    """The answer to our own fault, which shows nothing of it."""
    log.error("the request failed by our own fault", exc_info=error)  # with its id; the server's own line has none
    return problem_response(500, "internal-error", "the service failed on this request; its log says why")
