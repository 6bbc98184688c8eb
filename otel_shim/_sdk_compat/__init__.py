"""What touches private names of OpenTelemetry, the only place that does; each use says why there is no other way.

Spans of ours are in ``light_spans``.
"""

from __future__ import annotations

import copy
import functools
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple, cast

from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord, NoOpLogger, get_logger, get_logger_provider
from opentelemetry._logs import _internal as logs_api
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    Context,
    get_current,
    set_value,
)
from opentelemetry.instrumentation.log_utils import std_to_otel
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk._configuration import _OTelSDKConfigurator as SDKConfigurator
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.metrics import (
    AlignedHistogramBucketExemplarReservoir,
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.sdk.metrics._internal.aggregation import (
    _DEFAULT_EXPLICIT_BUCKET_HISTOGRAM_AGGREGATION_BOUNDARIES as _DEFAULT_BOUNDARIES,
)
from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import SpanContext

from otel_shim._guard import logger
from otel_shim.model import Scalar
from otel_shim.values import encodable

_LOADER = "opentelemetry.instrumentation.auto_instrumentation"
_ENCODERS = "opentelemetry.exporter.otlp.proto.common._internal"
_EXPORTERS = "opentelemetry.exporter.otlp.proto.http"

__all__ = [
    "Encoding",
    "LogBridge",
    "SDKConfigurator",
    "first_log_processor",
    "has_log_processor",
    "has_span_processor",
    "remove_attributes",
    "span_encoding",
    "stamp",
    "swap_providers",
    "wrap_encoders",
]


_SEVERITY_TEXTS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_MOST_LOGGERS = 1000


class BridgedRecord(LogRecord):
    """A record of the bridge: it has its identity already, and the SDK's copy of it costs little."""

    def __copy__(self) -> BridgedRecord:
        copied = BridgedRecord.__new__(BridgedRecord)
        vars(copied).update(vars(self))
        return copied


class LogBridge(LoggingHandler):
    """OpenTelemetry's bridge from ``logging``, with a record's text and own fields made by us.

    The bridge passes on what OTLP cannot hold: a warning for each such field, and for a body that
    cannot be encoded the loss of its whole batch. There is no public way in between.
    """

    def __init__(
        self,
        text: Callable[[logging.LogRecord], str],
        attributes: Callable[[logging.LogRecord], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._text = text
        self._attributes = attributes
        self._known: tuple[Any, dict[str, Any]] = None, {}

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on, unless it comes from what happens to another one meanwhile."""
        if self._is_emitting.get():
            return super().emit(record)  # which says so
        logger = self._logger_of(record.name)
        if isinstance(logger, NoOpLogger):
            return None
        token = self._is_emitting.set(True)
        try:
            logger.emit(self._translate(record))
        finally:
            self._is_emitting.reset(token)
        return None

    def _logger_of(self, name: str) -> Any:
        """The logger of a name, remembered for as long as the provider is the same."""
        provider = get_logger_provider()
        if self._known[0] is not provider or len(self._known[1]) > _MOST_LOGGERS:
            self._known = provider, {}
        loggers = self._known[1]
        found = loggers.get(name)
        if found is None:
            found = loggers[name] = get_logger(name, logger_provider=provider)
        return found

    def _translate(self, record: logging.LogRecord) -> LogRecord:
        level = record.levelname
        return BridgedRecord(
            timestamp=int(record.created * 1e9),
            observed_timestamp=time.time_ns(),
            context=get_current() or None,
            severity_text=_SEVERITY_TEXTS.get(level, level),
            severity_number=std_to_otel(record.levelno),
            body=encodable(str(self._text(record))),
            attributes=self._attributes(record),
        )

    def flush(self) -> None:
        """Nothing: the provider has an exit handler of its own, which runs before that of ``logging``.

        The official one starts a thread for it, which Python 3.12 and later refuse at the end: a traceback.
        """


def stamp(span: Span, attributes: Mapping[str, Scalar]) -> None:
    """Set attributes of ours on a span, unless it has ended.

    The API cleans every value again, which takes longer than all the rest of a stamp. Ours are clean;
    only where a limit could touch them is that left to the API.
    """
    held: Any = span._attributes
    plain = held.max_value_len is None and (
        held.maxlen is None or len(held._dict) + len(attributes) <= held.maxlen
    )
    if not plain:
        return span.set_attributes(attributes)
    with span._lock, held._lock:
        if span._end_time is None:
            held._dict.update(attributes)
    return None


def wants_http_spans() -> bool:
    """``is_http_instrumentation_enabled``, which in the other order finds out last what a calendar's requests need first."""
    suppressed = get_current().get(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)
    return not suppressed and is_instrumentation_enabled()


def without_http_spans(context: Context) -> Context:
    """A context in which instrumentors of HTTP clients make no spans; the public way is a block only."""
    return set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, context)


def stamp_any(span: trace_api.Span, attributes: Mapping[str, Scalar]) -> None:
    """Set attributes of ours on a span of any kind."""
    if isinstance(span, Span):
        stamp(span, attributes)
    else:
        span.set_attributes(attributes)


def renew_locks(span: Span) -> None:
    """Give a span, in a forked process, locks that no thread of the parent holds."""
    span._lock = threading.Lock()
    if isinstance(span._attributes, BoundedAttributes):
        span._attributes._lock = threading.Lock()


def held_attributes(span: Span) -> object:
    """The attributes that a span and its exported form share; for ``amend``, and for nothing else."""
    return span._attributes


def amend(attributes: Any, add: Mapping[str, Scalar], remove: Collection[str]) -> None:
    """Change the attributes of a span that has ended, for as long as it waits for its export.

    The API freezes them at the end. The dictionary is replaced, not changed, because an exporter may be
    reading it; after the export this changes nothing that anybody sees.
    """
    changed = {key: value for key, value in attributes._dict.items() if key not in remove}
    changed.update(add)
    if attributes.maxlen is None or len(changed) <= attributes.maxlen:
        attributes._dict = changed


def remove_attributes(span: Span, keys: Iterable[str]) -> None:
    """Take attributes off an open span. The API can only add; a value that proved wrong must go."""
    with span._lock:
        if span._end_time is not None:
            return
        for key in keys:
            if span._attributes is not None and key in span._attributes:
                del span._attributes[key]  # type: ignore[attr-defined]


class Encoding(NamedTuple):
    """The parts of an official encoder: of a span or log record, attributes, a resource and a scope."""

    item: Callable[[Any], Any]
    attributes: Callable[[Any], Any]
    resource: Callable[[Any], Any]
    scope: Callable[[Any], Any]


def span_encoding() -> Encoding:
    """The parts of the official encoder of spans, which has one public function for a whole batch."""
    official: Any = import_module(f"{_ENCODERS}.trace_encoder")
    return _encoding(official, official._encode_span)


def log_encoding() -> Encoding:
    """The parts of the official encoder of log records, likewise."""
    official: Any = import_module(f"{_ENCODERS}._log_encoder")
    return _encoding(official, official._encode_log)


def _encoding(official: Any, item: Callable[[Any], Any]) -> Encoding:
    attributes, resource = official._encode_attributes, official._encode_resource
    return Encoding(item, attributes, resource, official._encode_instrumentation_scope)


def wrap_encoders(of_spans: Callable[[Any], Any], of_logs: Callable[[Any], Any]) -> None:
    """Wrap what OTLP over HTTP encodes batches with; its exporters take no argument for that."""
    exporters: Any = import_module(f"{_EXPORTERS}.trace_exporter")
    exporters.encode_spans = of_spans(exporters.encode_spans)
    exporters = import_module(f"{_EXPORTERS}._log_exporter")
    exporters.encode_logs = of_logs(exporters.encode_logs)


def bare_links(span: ReadableSpan) -> Sequence[SpanContext] | None:
    """What a span links to; None where it has what few spans have: events, a text of its status, drops.

    The public properties copy all of it.
    """
    if type(span) is not ReadableSpan or span._events or span._status.description:
        return None
    if span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    if not span._links:
        return ()
    if any(link.attributes or link.dropped_attributes for link in span._links):
        return None
    return [link.context for link in span._links]


def attributes(span: ReadableSpan) -> Mapping[str, Any] | None:
    """The attributes of a span that has ended, without the copies that public ways make.

    Whoever makes spans of a type of their own decides by the public property what is seen.
    """
    if type(span) is not ReadableSpan:
        return span.attributes
    held: Any = span._attributes
    found: Mapping[str, Any] | None = getattr(held, "_dict", held)
    return found


def attribute(span: ReadableSpan, key: str) -> Any:
    """One attribute of a span, without the copy that the public property makes."""
    held: Any = span._attributes
    return None if held is None else getattr(held, "_dict", held).get(key)


def has_span_processor(provider: TracerProvider, kind: type[SpanProcessor]) -> bool:
    """Whether a provider already has a processor of this type."""
    return any(isinstance(p, kind) for p in provider._active_span_processor._span_processors)


def has_log_processor(provider: LoggerProvider, kind: type[LogRecordProcessor]) -> bool:
    """Whether a provider already has a processor of this type."""
    processors = provider._multi_log_record_processor._log_record_processors
    return any(isinstance(p, kind) for p in processors)


def complete_resources(providers: Iterable[Any], attributes: Mapping[str, str]) -> None:
    """Add what is lacking to the resources of providers, and of all they made; the API takes it when they are made."""
    for provider in providers:
        # That of metrics shows its resource to nobody.
        held = provider._sdk_config if isinstance(provider, MeterProvider) else provider
        if lacking := attributes.keys() - held.resource.attributes.keys():
            provider._update_resource(Resource({name: attributes[name] for name in lacking}))


def wrap_span_exporters(
    provider: TracerProvider, wrap: Callable[[SpanExporter], SpanExporter]
) -> None:
    """Put a wrapper around each span exporter; those of a configuration file are made by the SDK."""
    for processor in provider._active_span_processor._span_processors:
        if isinstance(processor, BatchSpanProcessor):
            batch = processor._batch_processor
            batch._exporter = wrap(cast(SpanExporter, batch._exporter))
        elif isinstance(processor, SimpleSpanProcessor):
            processor.span_exporter = wrap(processor.span_exporter)


def wrap_log_exporters(
    provider: LoggerProvider, wrap: Callable[[LogRecordExporter], LogRecordExporter]
) -> None:
    """Put a wrapper around each log exporter, likewise."""
    for processor in provider._multi_log_record_processor._log_record_processors:
        if isinstance(processor, BatchLogRecordProcessor):
            batch = processor._batch_processor
            batch._exporter = wrap(cast(LogRecordExporter, batch._exporter))
        elif isinstance(processor, SimpleLogRecordProcessor):
            processor._exporter = wrap(processor._exporter)


def first_log_processor(provider: LoggerProvider, processor: LogRecordProcessor) -> None:
    """Put a processor before all others: one that exports in ``on_emit`` must see its work."""
    multi = provider._multi_log_record_processor
    with multi._lock:
        multi._log_record_processors = (processor, *multi._log_record_processors)


def delegates(sampler: ParentBased) -> tuple[Any, ...]:
    """The samplers that one decides by; it shows them to nobody."""
    remote = sampler._remote_parent_sampled, sampler._remote_parent_not_sampled
    local = sampler._local_parent_sampled, sampler._local_parent_not_sampled
    return sampler._root, *remote, *local


def propagators(propagator: TextMapPropagator) -> tuple[TextMapPropagator, ...]:
    """The propagators that one consists of, itself where it is no composite; it shows them to nobody."""
    if type(propagator) is not CompositePropagator:
        return (propagator,)
    return tuple(propagator._propagators)


class HttpxParts:
    """What the official instrumentation of httpx does around a call; its parts are its own affair.

    AttributeError where it has other parts.
    """

    def __init__(self, official: Any) -> None:
        self._official = official
        self._kind = official._BaseHTTPXClientInstrumentor
        self._mode = official._StabilityMode.HTTP
        self.wrapper = self._kind._handle_request_wrapper
        self.async_wrapper = self._kind._handle_async_request_wrapper
        self.span_name: Callable[[str], str] = official._get_default_span_name
        self.redacted: Callable[[str], str] = official.redact_url
        self._about_request = official._apply_request_client_attributes_to_span
        self._to_span = official._apply_response_client_attributes_to_span
        self._to_metrics = official._apply_response_client_attributes_to_metrics
        self._inject = official._inject_propagation_headers
        labels = (
            official._client_duration_attrs_old,
            official._client_duration_attrs_new,
            self._mode,
        )
        self._filter = official._filter_semconv_duration_attrs, labels

    def replace(self, wrapper: Any, async_wrapper: Any) -> None:
        """Do this around a call instead, for whoever instruments from now on."""
        self._kind._handle_request_wrapper = staticmethod(wrapper)
        self._kind._handle_async_request_wrapper = staticmethod(async_wrapper)

    def excludes(self, excluded: Any) -> bool:
        """Whether any URL is excluded."""
        return bool(excluded and excluded._excluded_urls)

    def about_request(
        self, module: Any, method: str, url: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attributes of a request's span, and its labels so far."""
        attributes: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        self._about_request(attributes, labels, url, method, self._mode, module)
        return attributes, labels

    def labels(
        self, module: Any, method: str, url: Any, status: int, version: str
    ) -> dict[str, Any]:
        """The labels of a call's duration."""
        _, labels = self.about_request(module, method, url)
        self._to_metrics(trace_api.INVALID_SPAN, labels, status, version, self._mode)
        only, known = self._filter
        found: dict[str, Any] = only(labels, *known)
        return found

    def inject(self, module: Any, request: Any) -> None:
        """Put the current context into a request's headers."""
        self._inject(request.headers, (request,), {}, module)

    def answered(self, module: Any, span: Any, status: int, version: str) -> None:
        """Note an answer on a span."""
        self._to_metrics(span, {}, status, version, self._mode)
        if span.is_recording():
            self._to_span(span, status, version, self._mode, module)


def add_views(provider: MeterProvider, instruments: Iterable[Any], views: Sequence[View]) -> bool:
    """Add views to a provider, unless one of it matches an instrument already; the constructor alone takes them.

    They hold for instruments that have not been used yet. Returns whether they were added.
    """
    config = provider._sdk_config
    if any(view._match(instrument) for view in config.views for instrument in instruments):
        return False
    config.views = (*config.views, *views)
    return True


class _Measured(NamedTuple):
    """What aggregations read of a ``Measurement``, whose making cleans attributes that are clean."""

    value: float
    time_unix_nano: int
    instrument: Any
    context: Context
    attributes: Mapping[str, Any]


_NOTHING: Mapping[str, Any] = {}
_BY_CONTEXT = (AlwaysOffExemplarFilter, AlwaysOnExemplarFilter, TraceBasedExemplarFilter)
"""Filters of examples that look at the context only, and not at the value."""


class Series:
    """One series of a histogram or counter, found once.

    For every measurement the SDK cleans, filters, sorts and hashes all labels, to look the series up. Where it is not yet there, or not as this SDK keeps it, the measurement goes the public way.
    """

    def __init__(self, instrument: Any, labels: Mapping[str, Any]) -> None:
        self._instrument = instrument
        self._measure = getattr(instrument, "record", None) or instrument.add
        self._labels = labels
        self._consumer: Any = getattr(instrument, "_measurement_consumer", None)
        self._storages: Any = None
        self._places: list[tuple[Any, Any]] = []

    def record(self, value: float, more: Mapping[str, Any], context: Context) -> None:
        """Record a finite value; ``more`` is no label and stays on the exemplar."""
        found = self._aggregations()
        if not found or None in found:
            self._measure(value, {**self._labels, **more}, context=context)
            self._storages = None  # found next time
            return
        now, exemplars = time.time_ns(), self._consumer._sdk_config.exemplar_filter
        sampled = exemplars.should_sample(value, now, more, context)
        measurement: Any = _Measured(value, now, self._instrument, context, more)
        for aggregation in found:
            aggregation.aggregate(measurement, sampled)

    def record_all(self, values: Sequence[float], context: Context) -> None:
        """Record finite values of one point of the program, as ``record`` does each; what is the same is asked once."""
        for value in values[:1]:
            self.record(value, _NOTHING, context)  # after which the series is there
        rest = values[1:]
        if not rest or not self._record_alike(rest, context):
            for value in rest:
                self.record(value, _NOTHING, context)

    def _record_alike(self, values: Sequence[float], context: Context) -> bool:
        """Record them with one decision on whether they are examples; false where each needs its own."""
        found = self._aggregations()
        if not found or None in found:
            return False
        instrument, now = self._instrument, time.time_ns()
        decides = self._consumer._sdk_config.exemplar_filter
        if type(decides) not in _BY_CONTEXT:
            return False
        sampled = decides.should_sample(values[0], now, _NOTHING, context)
        for aggregation in found:
            examples = _kept_examples(aggregation, values) if sampled else ()
            for place, value in enumerate(values):
                measurement: Any = _Measured(value, now, instrument, context, _NOTHING)
                aggregation.aggregate(measurement, place in examples)
        return True

    def _aggregations(self) -> list[Any]:
        storages = getattr(self._consumer, "_reader_storages", None)
        if not storages or not self._instrument._is_enabled():
            return []
        if storages is not self._storages:  # replaced whenever a reader comes or goes
            self._places = _places(self._instrument, self._labels, storages.values())
            self._storages = storages
        return [match._attributes_aggregation.get(key) for match, key in self._places]


def _kept_examples(aggregation: Any, values: Sequence[float]) -> Collection[int]:
    """The places of those values that are worth offering as examples: of each bucket the last is kept."""
    if type(aggregation._reservoir) is not AlignedHistogramBucketExemplarReservoir:
        return range(len(values))
    boundaries = aggregation._boundaries
    return set(
        {bisect_left(boundaries, value): place for place, value in enumerate(values)}.values()
    )


def _places(
    instrument: Any, labels: Mapping[str, Any], storages: Iterable[Any]
) -> list[tuple[Any, Any]]:
    """Where the readers keep a series; none where one of them keeps it in a way of its own."""
    places: list[tuple[Any, Any]] = []
    for storage in storages:
        if type(storage) is not MetricReaderStorage:
            return []
        for match in storage._get_or_init_view_instrument_match(instrument):
            kept = match._view._attribute_keys
            if kept is not None and not labels.keys() <= kept:
                return []
            places.append((match, _hash_attributes(labels)))
    return places


def has_metric_readers(provider: MeterProvider) -> bool:
    """Whether anybody reads what is recorded."""
    return bool(provider._measurement_consumer._reader_storages)


def use_metric_storage(provider: MeterProvider, reader: MetricReader, storage: Any) -> None:
    """Give a reader a storage of our own; the SDK's keeps everything in the memory of one process."""
    provider.add_metric_reader(reader)
    consumer = provider._measurement_consumer
    with consumer._lock:
        consumer._reader_storages = {**consumer._reader_storages, reader: storage}


def start_metrics_afresh(provider: MeterProvider) -> None:
    """In a forked child: drop what the parent counted, and locks that a thread of it held.

    The SDK's own hook does neither (opentelemetry-python#4345): a child would report the parent's counts
    again as its own, and one that was forked during a collection would never collect.
    """
    consumer = provider._measurement_consumer
    consumer._lock = threading.Lock()
    fresh: dict[Any, Any] = {}
    for reader, storage in consumer._reader_storages.items():
        if hasattr(reader, "_export_lock"):
            reader._export_lock = threading.Lock()
        fresh[reader] = _emptied(storage)
    consumer._reader_storages = fresh


def _emptied(storage: Any) -> Any:
    if type(storage) is not MetricReaderStorage:  # one of our own looks after itself
        return storage
    return MetricReaderStorage(
        storage._sdk_config,
        storage._instrument_class_temporality,
        storage._instrument_class_aggregation,
    )


def boundaries(instrument: Any) -> tuple[float, ...]:
    """The boundaries that a histogram was made with; where it has none, OpenTelemetry's default."""
    advised = instrument._advisory.explicit_bucket_boundaries
    return tuple(_DEFAULT_BOUNDARIES if advised is None else advised)


@contextmanager
def stopped_on_failure() -> Iterator[None]:
    """Stop the providers and readers that a block made, where it raises.

    They start threads while they are made, and one that is half made is nobody's: what made it raised.
    """
    kinds: tuple[Any, ...] = (TracerProvider, LoggerProvider, MeterProvider, MetricReader)
    made: list[Any] = []
    before = [kind.__init__ for kind in kinds]
    for kind, initialise in zip(kinds, before, strict=True):
        kind.__init__ = _noting(initialise, made)
    try:
        yield
    except BaseException:
        _stop(made)
        raise
    finally:
        for kind, initialise in zip(kinds, before, strict=True):
            kind.__init__ = initialise


def _noting(initialise: Callable[..., None], made: list[Any]) -> Callable[..., None]:
    @functools.wraps(initialise)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        initialise(self, *args, **kwargs)

    return init


def _stop(made: Sequence[Any]) -> None:
    """Stop providers and readers that nobody used; the readers collect nothing any more, so nothing is sent."""
    readers = [each for each in made if isinstance(each, MetricReader)]
    for reader in readers:
        reader._set_collect_callback(cast(Any, lambda *_, **__: None))
    providers = [each for each in made if not isinstance(each, MetricReader)]
    for each in providers:
        _shut_down(each)
    for reader in readers:
        if not getattr(reader, "_shutdown", False):  # it has not come to a provider
            _shut_down(reader)


def _shut_down(half_made: Any) -> None:
    try:
        half_made.shutdown()
    except Exception as error:  # noqa: BLE001 - it may lack what that needs
        logger.debug("a leftover of the configuration file: %s", type(error).__name__)


def _exporting(tracers: Any, loggers: Any, meters: Any) -> list[Any]:
    """The processors and readers that export for these providers; they show them to nobody."""
    spans = getattr(getattr(tracers, "_active_span_processor", None), "_span_processors", ())
    logs = getattr(loggers, "_multi_log_record_processor", None)
    records = getattr(logs, "_log_record_processors", ())
    return [*spans, *records, *getattr(meters, "_metric_readers", ())]


def export_sessions(tracers: Any, loggers: Any, meters: Any) -> Iterator[Any]:
    """The HTTP sessions of the OTLP exporters in place."""
    for owner in _exporting(tracers, loggers, meters):
        exporter: Any = getattr(owner, "_batch_processor", owner)
        exporter = getattr(exporter, "span_exporter", exporter)
        while (inner := getattr(exporter, "_exporter", None)) is not None:
            exporter = inner
        transport = getattr(getattr(exporter, "_client", None), "_transport", None)
        if (session := getattr(transport, "_session", None)) is not None:
            yield session


@contextmanager
def last_exports(tracers: Any, loggers: Any, meters: Any) -> Iterator[list[threading.Thread]]:
    """Let all threads that export send what is left, and end; a block in which they are waited for.

    Afterwards providers shut down without a wait for those that go on. By itself the SDK shuts one down after
    the other, and waits 30 s for each; a thread of ours that would do it cannot be started at the end.
    """
    owners = _exporting(tracers, loggers, meters)
    inner: Iterable[Any] = (getattr(each, "_batch_processor", None) for each in owners)
    batches = [each for each in inner if isinstance(each, BatchProcessor)]
    readers = [each for each in owners if isinstance(each, PeriodicExportingMetricReader)]
    for batch in batches:
        batch._shutdown = True
        batch._worker_awaken.set()
    for reader in readers:
        reader._shutdown_event.set()
    threads = [batch._worker_thread for batch in batches]
    threads += [reader._daemon_thread for reader in readers if reader._daemon_thread is not None]
    yield threads
    for batch in batches:
        batch._shutdown = False  # else its exporter would not be shut down
        batch._shutdown_timeout_exceeded = True
    for thread in threads:
        if thread.is_alive():
            vars(thread)["join"] = _no_wait


def _no_wait(timeout: float | None = None) -> None:
    """Stands for the ``join`` of a thread that is not waited for."""


def renew_session(session: Any) -> None:
    """Give a session of requests connections of its own; a copy of an adapter starts with none.

    Its cookies too, for they have a lock.
    """
    for prefix, adapter in session.adapters.items():
        session.adapters[prefix] = copy.copy(adapter)
    session.cookies = type(session.cookies)()


def wrap_loader(
    distro: Callable[[Any], Any],
    instrumentors: Callable[[Any], Any],
    conflicts: Callable[[Any], Any],
) -> None:
    """Wrap the loader's choice of a distro, its loading of instrumentors and its look at versions.

    For the doctor only: the loader has no hooks for onlookers.
    """
    loader: Any = import_module(_LOADER)
    steps: Any = import_module(f"{_LOADER}._load")
    loader._load_distro = distro(loader._load_distro)
    loader._load_instrumentors = instrumentors(loader._load_instrumentors)
    steps.get_dist_dependency_conflicts = conflicts(steps.get_dist_dependency_conflicts)


def keep_processors(multi: Any, kept: tuple[Any, ...]) -> None:
    """Leave only these of the processors of spans or log records, for the doctor."""
    logs = hasattr(multi, "_log_record_processors")
    setattr(multi, "_log_record_processors" if logs else "_span_processors", kept)


def swap_providers(tracers: Any, loggers: Any) -> tuple[Any, Any]:
    """Set the global providers and return those before, None where none was set.

    For tests only: the API sets them once and for all.
    """
    before = trace_api._TRACER_PROVIDER, logs_api._LOGGER_PROVIDER
    trace_api._TRACER_PROVIDER, logs_api._LOGGER_PROVIDER = tracers, loggers
    return before
