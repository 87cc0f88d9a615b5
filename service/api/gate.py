"""What every request passes before anything of it is read: who asks, what they may do, how often, and the audit log."""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs, tracing
from service.api.access import SAFE_METHODS, Caller, needed_scope, public_paths
from service.api.authentication import Authenticator
from service.api.deps import Services
from service.api.problems import Forbidden, TooManyRequests, database_problem, response_of
from service.domain.api_keys import KeyScope
from service.domain.errors import QuantsieveError
from service.store import audit
from service.store.database import AWAY
from service.store.identifiers import Prefix, new_id
from service.store.rate_buckets import Rate, buckets_of

SHOWN_PATH = 300

log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware. It leaves the caller and the request's id in the request's state."""

    def __init__(self, app: ASGIApp, services: Services, authenticator: Authenticator) -> None:
        settings = services.settings
        self._app = app
        self._database = services.database
        self._authenticator = authenticator
        self._public = public_paths(settings)
        rate = Rate(settings.rate_limit_per_second, settings.rate_limit_burst)
        self._buckets = buckets_of(services.database, rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = new_id(Prefix.REQUEST)
        parent = Headers(scope=scope).get(tracing.HEADER)
        seen = {"http__request__method": scope["method"], "quantsieve__request_id": request_id}
        with logs.fields(request=request_id), tracing.span(scope["method"], parent=parent, server=True, **seen) as span:
            await self._watched(scope, receive, _watching(send, span, scope))

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        needed = needed_scope(scope["method"], scope["path"], public=self._public)
        if needed is None:
            await self._app(scope, receive, send)
            return
        try:
            caller = await run_in_threadpool(self._admit, Headers(scope=scope).get("authorization"))
        except QuantsieveError as error:
            await response_of(error)(scope, receive, send)
            return
        except AWAY as error:
            await database_problem(error)(scope, receive, send)
            return
        state["caller"] = caller
        logs.note(key=caller.key_id, project=caller.project_id)
        if scope["method"] in SAFE_METHODS:
            await self._pass(scope, receive, send, needed)
        else:
            await self._recorded(scope, receive, send, needed)

    def _admit(self, authorization: str | None) -> Caller:
        caller = self._authenticator.caller(authorization)
        seconds = self._buckets.take(caller.key_id) if caller.limited else 0.0
        if seconds > 0:
            raise TooManyRequests(f"{caller.key_id} makes too many requests; the next is taken soon", seconds=seconds)
        return caller

    async def _pass(self, scope: Scope, receive: Receive, send: Send, needed: KeyScope) -> None:
        caller: Caller = scope["state"]["caller"]
        if needed in caller.scopes:
            await self._app(scope, receive, send)
            return
        has = ", ".join(sorted(caller.scopes)) or "none"
        message = f"this needs the scope {needed}, and {caller.key_id} has {has}; use another key"
        await response_of(Forbidden(message, code="scope-missing"))(scope, receive, send)

    async def _recorded(self, scope: Scope, receive: Receive, send: Send, needed: KeyScope) -> None:
        """Pass it on; how it ends stands in the audit log before the caller knows it."""
        recorded = False

        async def recording(message: Message) -> None:
            nonlocal recorded
            if message["type"] == "http.response.start" and not recorded:
                recorded = True
                await run_in_threadpool(self._record, scope, message)
            await send(message)

        try:
            await self._pass(scope, receive, recording, needed)
        except BaseException:
            if not recorded:
                await run_in_threadpool(self._record, scope, {"status": 500, "headers": []})
            raise

    def _record(self, scope: Scope, start: Mapping[str, Any]) -> None:
        caller: Caller = scope["state"]["caller"]
        location = Headers(raw=list(start["headers"])).get("location")
        deed = audit.Deed(
            key_id=caller.key_id,
            project_id=caller.project_id,
            action=getattr(scope.get("route"), "name", None) or scope["method"],
            object=location or quote(scope["path"], errors="replace")[:SHOWN_PATH],
            outcome=start["status"],
            request_id=scope["state"]["request_id"],
        )
        try:
            with self._database.write() as session:
                audit.add(session, deed)
        except SQLAlchemyError as error:  # what was done is done: the log of the service has it at least
            log.error("not in the audit log: %s: %s", deed, error)


def _watching(send: Send, span: tracing.Span, scope: Scope) -> Send:
    """The caller is told the request's id, and the span what the caller is told."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Request-Id"] = scope["state"]["request_id"]
            # the template of the path: the path itself would be another name each time
            route = getattr(scope.get("route"), "path", None)
            span.name(f"{scope['method']} {route}" if route is not None else scope["method"])
            span.note(http__route=route, http__response__status_code=message["status"])
            if message["status"] >= 500:
                span.failed(f"status {message['status']}")
        await send(message)

    return sending
