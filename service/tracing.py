"""Spans of OpenTelemetry, where the extra ``otel`` is installed and the environment asks for traces; else nothing.

Asked for by OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_TRACES_EXPORTER=otlp or console.
Everything else is set as the SDK documents it: https://opentelemetry.io/docs/languages/sdk-configuration/
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from service import __version__
from service.domain.errors import InvalidInput

try:
    from opentelemetry import trace
    from opentelemetry.trace import Link, SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the extra is not installed
    trace = None  # type: ignore[assignment]

HEADER = "traceparent"
"""The header of requests and messages: https://www.w3.org/TR/trace-context/"""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Span:
    """What is being done; where nothing is traced, all that is said to it is dropped."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def name(self, name: str) -> None:
        """Name it by what became known on the way."""
        if self._span is not None:
            self._span.update_name(name)

    def note(self, **attributes: str | int | None) -> None:
        """Add attributes; those that are None are left out. In names, two underscores stand for a dot."""
        if self._span is not None:
            self._span.set_attributes(_named(attributes))

    def failed(self, error: BaseException | str) -> None:
        """Say that it went wrong."""
        if self._span is not None:
            if isinstance(error, BaseException):
                self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, str(error))


UNTRACED = Span()


@contextmanager
def span(
    name: str, *, parent: str | None = None, link: str | None = None, server: bool = False, **attributes: Any
) -> Iterator[Span]:
    """A span as long as the block lasts, under ``parent`` (a traceparent), else under the one that is open here.

    ``link``: the traceparent of what is related, but no parent. ``server``: of a request, for which newer FastAPI opens
    a span by itself; then it is that one.
    """
    if trace is None:
        yield UNTRACED
        return
    if server and trace.get_current_span().is_recording():
        trace.get_current_span().set_attributes(_named(attributes))
        yield Span(trace.get_current_span())
        return
    linked = trace.get_current_span(_context(link)).get_span_context() if link is not None else None
    opened = trace.get_tracer("quantsieve", __version__).start_as_current_span(
        name,
        context=_context(parent) if parent is not None else None,
        kind=SpanKind.SERVER if server else SpanKind.CONSUMER,
        attributes=_named(attributes),
        links=[Link(linked)] if linked is not None and linked.is_valid else None,
    )
    with opened as entered:
        yield Span(entered)


def current() -> str | None:
    """The traceparent of the span that is open here; None where nothing is traced."""
    if trace is None:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER)


def _context(parent: str) -> Any:
    return TraceContextTextMapPropagator().extract({HEADER: parent})


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environment.get(each) for each in _ENDPOINTS)


def start(part: str) -> Callable[[], None]:
    """Export the spans of this process from now on, where the environment asks for it; what sends the last ones.

    ``part``: the service's name where OTEL_SERVICE_NAME names none. Raises InvalidInput where that cannot be.
    """
    if not asked_for(os.environ):
        return _nothing
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError as error:
        message = f"OTEL_*: traces need the package {error.name}: pip install 'quantsieve[otel]'"
        raise InvalidInput(message, field="OTEL_TRACES_EXPORTER") from None
    exporters = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
    if exporter not in exporters:
        message = f"OTEL_TRACES_EXPORTER: {exporter!r} is not known; give otlp, console or none"
        raise InvalidInput(message, field="OTEL_TRACES_EXPORTER")
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: part}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporters[exporter]()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _nothing() -> None:
    """There is nothing to send."""
