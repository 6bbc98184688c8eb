"""Retries of HTTP calls, as their libraries make them.

tenacity (and stamina, which is built on it), transports of httpx that try again, and the ``Retry`` of urllib3
under requests and niquests.

Under tenacity and httpx each attempt has an HTTP span of its own, and the logical call one beside them. Under
urllib3 all attempts are inside of one HTTP span, which says how many they were.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any
from weakref import finalize

from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_shim._guard import guarded
from otel_shim.capture.patches import Patches
from otel_shim.signals import connectors
from otel_shim.signals.connectors import Call, Recorder, Sending

_CALL = "_otel_shim_call"
_POOLS = ("urllib3", "urllib3_future")
"""niquests brings urllib3-future, which also puts itself in the place of urllib3."""


class RetriesInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments tenacity, httpx and urllib3, when the application imports them.

    ``instrument`` takes ``tracer_provider`` and ``meter_provider``; the global ones are the default.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: what is not installed is not imported."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        recorder = Recorder(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))
        self._patches = Patches()
        wrap = self._patches.when_imported
        tenacity = Tenacity(recorder)
        wrap("tenacity", "BaseRetrying.iter", tenacity.step)
        wrap("tenacity.asyncio", "AsyncRetrying.iter", tenacity.async_step)
        wrap("tenacity", "AttemptManager.__exit__", tenacity.left)
        httpx = Httpx(recorder)
        for package in ("httpx", "httpx2"):
            wrap(package, "Client.send", httpx.sent)
            wrap(package, "AsyncClient.send", httpx.async_sent)
        pools = Pools(recorder)
        for package in _POOLS:
            wrap(f"{package}.connectionpool", "HTTPConnectionPool.urlopen", pools.opened)
            pool = "AsyncHTTPConnectionPool.urlopen"
            wrap(f"{package}._async.connectionpool", pool, pools.async_opened)
            wrap(f"{package}.util.retry", "Retry.increment", pools.failed)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()


class Tenacity:
    """The steps between attempts, which functions, decorators and loops have in common.

    ``iter`` says by what it returns whether an attempt (``DoAttempt``) or a wait (``DoSleep``, its
    seconds) comes next; otherwise the call is over. A loop that is left in the middle calls it no more.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def step(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``BaseRetrying.iter``."""
        state = args[0] if args else kwargs["retry_state"]
        _pause(state)
        try:
            following = wrapped(*args, **kwargs)
        except BaseException:
            self._over(state, succeeded=False)
            raise
        self._follow(state, following)
        return following

    async def async_step(
        self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``AsyncRetrying.iter``."""
        state = args[0] if args else kwargs["retry_state"]
        _pause(state)
        try:
            following = await wrapped(*args, **kwargs)
        except BaseException:
            self._over(state, succeeded=False)
            raise
        self._follow(state, following)
        return following

    def left(self, wrapped: Any, attempt: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """``AttemptManager.__exit__``: the body of a loop is left, perhaps for good."""
        _pause(attempt.retry_state)
        if not args or args[0] is None:
            self._perhaps_over(attempt)
        return wrapped(*args, **kwargs)

    @guarded(default=None)
    def _follow(self, state: Any, following: Any) -> None:
        kind = type(following).__name__
        if kind == "DoSleep":
            if (call := getattr(state, _CALL, None)) is not None:
                call.over_at = None
                self._recorder.waited(call, float(following))
        elif kind == "DoAttempt":
            _resume(state)
        else:
            self._over(state, succeeded=not state.outcome.failed)

    @guarded(default=None)
    def _perhaps_over(self, attempt: Any) -> None:
        """A loop that is not continued drops its attempt, and that is its end."""
        call: Call | None = getattr(attempt.retry_state, _CALL, None)
        if call is not None and call.attempt > 1:
            call.ends()
            finalize(attempt, self._dropped, call, call.attempt).atexit = False

    def _dropped(self, call: Call, attempt: int) -> None:
        if call.attempt == attempt and call.over_at is not None:
            self._recorder.ended(call, attempt, succeeded=True)

    @guarded(default=None)
    def _over(self, state: Any, succeeded: bool) -> None:
        call: Call | None = getattr(state, _CALL, None)
        if call is not None:
            setattr(state, _CALL, None)
            call.over_at = None
            self._recorder.ended(call, state.attempt_number, succeeded)


@guarded(default=None)
def _resume(state: Any) -> None:
    """An attempt begins."""
    call: Call | None = getattr(state, _CALL, None)
    if call is None:
        call = Call(connectors.current())
        setattr(state, _CALL, call)
    call.begin(state.attempt_number)
    connectors.use(call)


@guarded(default=None)
def _pause(state: Any) -> None:
    """An attempt is over: what happens now is not part of it."""
    call: Call | None = getattr(state, _CALL, None)
    if call is not None and connectors.current() is call:
        connectors.use(call.outer)


class Httpx:
    """One ``send``, in which a transport may ask more than once. Redirects and logins are no retries."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def sent(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``Client.send``."""
        call = Sending(connectors.current())
        connectors.use(call)
        response = None
        try:
            response = wrapped(*args, **kwargs)
        finally:
            self._over(call, response)
        return response

    async def async_sent(
        self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``AsyncClient.send``."""
        call = Sending(connectors.current())
        connectors.use(call)
        response = None
        try:
            response = await wrapped(*args, **kwargs)
        finally:
            self._over(call, response)
        return response

    @guarded(default=None)
    def _over(self, call: Call, response: Any) -> None:
        connectors.use(call.outer)
        if len(call.spans) < 2:
            return
        spans = call.repeated()
        attempts = len(spans) - _logins(response)
        if attempts > 1:
            for span, seconds in connectors.gaps(spans):
                self._recorder.waited(call, seconds, span)
            succeeded = response is not None and response.status_code < 400
            self._recorder.ended(call, attempts, succeeded)


def _logins(response: Any) -> int:
    """How often the same address was asked because it wanted a login: the application knows of these."""
    history = getattr(response, "history", ())
    return sum(before.url == response.url for before in history)


class Tries:
    """What urllib3 does for one request: each attempt is an ``urlopen`` inside of the one before."""

    __slots__ = ("attempts", "exhausted", "failed_at", "pool", "reason", "waited")

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.attempts = 1
        self.waited = 0.0
        self.failed_at: float | None = None
        self.reason: str | None = None
        self.exhausted = False


class Pools:
    """Connection pools of urllib3, sync and async.

    The pool whose ``urlopen`` is at work is noted, and what it tries once something has failed: of a request
    that is answered at once nothing else is done.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._at_work: ContextVar[Any] = ContextVar("otel_shim_tries", default=None)
        """A pool, or its ``Tries``."""

    def opened(self, wrapped: Any, pool: Any, args: Any, kwargs: Any) -> Any:
        """``HTTPConnectionPool.urlopen``."""
        outer = self._at_work.get()
        if outer is not None:
            if type(outer) is Tries:
                self._again(outer, pool)
            return wrapped(*args, **kwargs)
        self._at_work.set(pool)
        try:
            return wrapped(*args, **kwargs)
        finally:
            tries = self._at_work.get()
            self._at_work.set(None)
            if type(tries) is Tries:
                self._over(tries)

    async def async_opened(self, wrapped: Any, pool: Any, args: Any, kwargs: Any) -> Any:
        """``AsyncHTTPConnectionPool.urlopen``."""
        outer = self._at_work.get()
        if outer is not None:
            if type(outer) is Tries:
                self._again(outer, pool)
            return await wrapped(*args, **kwargs)
        self._at_work.set(pool)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            tries = self._at_work.get()
            self._at_work.set(None)
            if type(tries) is Tries:
                self._over(tries)

    def failed(self, wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        """``Retry.increment``: an attempt failed; raises where there are to be no more."""
        tries = self._tries()
        if tries is not None:
            _fail(tries, *args[2:4], **kwargs)
        try:
            return wrapped(*args, **kwargs)
        except Exception:
            if tries is not None:
                tries.exhausted = True
            raise

    @guarded(default=None)
    def _tries(self) -> Tries | None:
        """What the pool at work tries; None outside of any, and of an exporter's own request."""
        found = self._at_work.get()
        if found is None or isinstance(found, Tries):
            return found
        if not is_instrumentation_enabled():
            return None
        tries = Tries(found)
        self._at_work.set(tries)
        return tries

    @guarded(default=None)
    def _again(self, tries: Tries, pool: Any) -> None:
        """An ``urlopen`` inside of another: of the same pool it is another attempt, unless redirected."""
        if tries.pool is pool and tries.failed_at is not None:
            seconds = time.perf_counter() - tries.failed_at
            tries.failed_at = None
            tries.attempts += 1
            tries.waited += seconds
            self._recorder.waits(str(pool.host), seconds, tries.reason)

    @guarded(default=None)
    def _over(self, tries: Tries) -> None:
        """Tell of it where there were several attempts."""
        if tries.attempts > 1:
            succeeded = not tries.exhausted
            span = trace.get_current_span()
            connectors.describe(span, tries.attempts, tries.waited, succeeded)
            self._recorder.over(str(tries.pool.host), succeeded)


@guarded(default=None)
def _fail(tries: Tries, response: Any = None, error: BaseException | None = None, **_: Any) -> None:
    if error is not None:
        tries.failed_at, tries.reason = time.perf_counter(), type(error).__qualname__
    elif response is not None and not response.get_redirect_location():
        tries.failed_at, tries.reason = time.perf_counter(), str(response.status)
