"""What every request passes: no foreign web site may drive the API, and every answer carries the security headers."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import SAFE_METHODS
from service.api.problems import BadRequest, Forbidden, response_of
from service.domain.errors import QuantsieveError
from service.settings import LOOPBACK

SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware. ``host`` is the address that the API listens on.

    On a loopback address only loopback names are taken in the Host header: else a web page could reach the API by
    rebinding its own name to 127.0.0.1. A request that changes something must come from the same origin, or from no
    browser at all.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._hosts = LOOPBACK if host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await response_of(refusal)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> QuantsieveError | None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return BadRequest("the Host header is not a host", code="bad-host")
        if self._hosts is not None and name not in self._hosts:
            detail = f"the Host header names {name!r}; this service answers only to {', '.join(sorted(self._hosts))}"
            return BadRequest(detail, code="bad-host")
        origin = headers.get("origin")
        if method not in SAFE_METHODS and origin is not None and not _same_origin(origin, host):
            return Forbidden(f"a page of {origin!r} may not change anything here", code="cross-origin")
        return None


def _same_origin(origin: str, host: str) -> bool:
    # the scheme is not compared: a proxy in front may have ended the TLS
    return bool(host) and _authority(origin) == host.lower()


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
