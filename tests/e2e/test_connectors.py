"""Calls to a partner that fails: by each HTTP client and each way of trying again, without code of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from examples.saas.demo.stack import clean_environment

from . import collectors, environments, otlp, server
from .environments import Environment
from .partner import Partner, partner

USUAL = Environment(
    "connectors", ("requests", "tenacity==9.1.4", "stamina==26.1.0", "httpx-retries==0.6.0")
)
NIQUESTS = Environment("connectors-niquests", ("niquests==3.21.2", "tenacity==9.1.4"))
"""On its own: it puts another urllib3 in the place of the usual one."""
ADDRESS = "127.0.0.1"
CALL = "HTTP call with retries"

HTTPX = "import httpx\nask = lambda: httpx.get(URL, timeout=2).raise_for_status()\n"
HTTPX_ASYNC = """
import asyncio, httpx
async def ask():
    async with httpx.AsyncClient() as client:
        return (await client.get(URL, timeout=2)).raise_for_status()
"""
REQUESTS = "import requests\nask = lambda: requests.get(URL, timeout=2).raise_for_status()\n"
NIQUESTS_SYNC = "import niquests\nask = lambda: niquests.get(URL, timeout=2).raise_for_status()\n"
NIQUESTS_ASYNC = """
import asyncio, niquests
async def ask():
    async with niquests.AsyncSession() as session:
        return (await session.get(URL, timeout=2)).raise_for_status()
"""
ONCE = """
for URL in URLS:
    try:
        ask()
        print("fine")
    except Exception as error:
        print(type(error).__name__)
"""
ONCE_ASYNC = ONCE.replace("ask()", "asyncio.run(ask())")
DECORATED = """
import tenacity
policy = dict(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.05), reraise=True)
ask = tenacity.retry(**policy)(ask)
"""
LOOP = """
import tenacity
def looped(attempts=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.05))):
    for attempt in attempts:
        with attempt:
            return once()
once, ask = ask, looped
"""
LOOP_TO_ITS_END = LOOP.replace("return once()", "once()")
LOOP_ASYNC = """
import tenacity
async def looped():
    policy = dict(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.05))
    async for attempt in tenacity.AsyncRetrying(**policy):
        with attempt:
            return await once()
once, ask = ask, looped
"""
STAMINA = """
import stamina
ask = stamina.retry(on=Exception, attempts=3, wait_initial=0.05, wait_jitter=0)(ask)
"""
TRANSPORT = """
import httpx, httpx_retries
policy = httpx_retries.Retry(total=2, backoff_factor=0.05)
client = httpx.Client(transport=httpx_retries.RetryTransport(retry=policy))
ask = lambda: client.get(URL, timeout=2).raise_for_status()
"""
ADAPTER = """
import requests, requests.adapters
from urllib3.util import Retry
session = requests.Session()
policy = Retry(total=2, backoff_factor=0.05, status_forcelist=[429, 503])
session.mount("http://", requests.adapters.HTTPAdapter(max_retries=policy))
ask = lambda: session.get(URL, timeout=2).raise_for_status()
"""
NIQUESTS_RETRIES = """
import niquests
from niquests.packages.urllib3.util import Retry
policy = Retry(total=2, backoff_factor=0.05, status_forcelist=[429, 503])
session = niquests.Session(retries=policy)
ask = lambda: session.get(URL, timeout=2).raise_for_status()
"""
NIQUESTS_RETRIES_ASYNC = """
import asyncio, niquests
from niquests.packages.urllib3.util import Retry
policy = Retry(total=2, backoff_factor=0.05, status_forcelist=[429, 503])
async def ask():
    async with niquests.AsyncSession(retries=policy) as session:
        return (await session.get(URL, timeout=2)).raise_for_status()
"""
CLIENTS = {
    "httpx": (USUAL, HTTPX + ONCE),
    "httpx, async": (USUAL, HTTPX_ASYNC + ONCE_ASYNC),
    "requests": (USUAL, REQUESTS + ONCE),
    "niquests": (NIQUESTS, NIQUESTS_SYNC + ONCE),
    "niquests, async": (NIQUESTS, NIQUESTS_ASYNC + ONCE_ASYNC),
}
WITH_SPANS = {
    "tenacity, httpx": (USUAL, HTTPX + DECORATED + ONCE),
    "tenacity, httpx, async": (USUAL, HTTPX_ASYNC + DECORATED + ONCE_ASYNC),
    "tenacity, requests": (USUAL, REQUESTS + DECORATED + ONCE),
    "tenacity, loop that is left": (USUAL, REQUESTS + LOOP + ONCE),
    "tenacity, loop to its end": (USUAL, REQUESTS + LOOP_TO_ITS_END + ONCE),
    "tenacity, loop, async": (USUAL, HTTPX_ASYNC + LOOP_ASYNC + ONCE_ASYNC),
    "tenacity, niquests": (NIQUESTS, NIQUESTS_SYNC + DECORATED + ONCE),
    "tenacity, niquests, async": (NIQUESTS, NIQUESTS_ASYNC + DECORATED + ONCE_ASYNC),
    "stamina": (USUAL, HTTPX + STAMINA + ONCE),
    "transport of httpx": (USUAL, TRANSPORT + ONCE),
}
INSIDE = {
    "requests": (USUAL, ADAPTER + ONCE),
    "niquests": (NIQUESTS, NIQUESTS_RETRIES + ONCE),
    "niquests, async": (NIQUESTS, NIQUESTS_RETRIES_ASYNC + ONCE_ASYNC),
}


@dataclass(frozen=True)
class Outcome:
    """What one run left behind; ``said`` is an error, or ``fine``, for each address."""

    spans: list[otlp.Span]
    points: list[otlp.Point]
    said: list[str]

    def calls(self) -> list[otlp.Span]:
        """Its HTTP spans, in the order in which they ended."""
        return [span for span in self.spans if span.kind == "client"]

    def logical(self) -> list[otlp.Span]:
        """Its logical calls."""
        return [span for span in self.spans if span.name == CALL]

    def of(self, name: str) -> list[otlp.Point]:
        """The points of one metric."""
        return [point for point in self.points if point.name == name]


@pytest.fixture(scope="module")
def other() -> Iterator[Partner]:
    """The partner."""
    with partner() as serving:
        yield serving


def run(environment: Environment, code: str, *urls: str, **more: str) -> Outcome:
    """Run a script under the launcher to its end; it asks each address in turn and prints what came of it."""
    python = environments.make(environment).program("python")
    launcher = environment.program("opentelemetry-instrument")
    with collectors.healthy() as sink:
        env = {**clean_environment(), **server.telemetry("connector", sink.url), **more}
        env["OTEL_SHIM_LOG_FORMAT"] = "text"
        done = subprocess.run(
            [launcher, python, "-c", f"URLS = {urls!r}\n{code}"],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return Outcome(list(otlp.spans(sink)), list(otlp.points(sink)), done.stdout.split())


ANSWERS = ("200", "503", "429", "reset", "silent", "302")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_request_is_one_span_and_one_duration(client: str, other: Partner) -> None:
    """Whatever becomes of it; the partner is named, its answer or what failed too, and the trace goes on there."""
    environment, code = CLIENTS[client]
    other.asked.clear()
    urls = [f"{other.url}/{answer}/{client.replace(', ', '-')}" for answer in ANSWERS]
    outcome = run(environment, code, *urls)
    spans = {span.attributes["url.full"]: span for span in outcome.spans}
    assert list(spans) == urls and len(outcome.spans) == len(urls)
    assert {asked["traceparent"].split("-")[1] for asked in other.asked} == {
        span.trace_id for span in outcome.spans
    }
    for url, answer, said in zip(urls, ANSWERS, outcome.said, strict=True):
        is_right(spans[url], answer, said)
    port = int(other.url.rpartition(":")[2])
    points = [
        point
        for point in outcome.of("http.client.request.duration")
        if point.attributes["server.port"] == port
    ]
    assert {point.attributes["server.address"] for point in points} == {ADDRESS}
    assert sum(point.count for point in points) == len(urls)
    failed = {point.attributes.get("error.type") for point in points}
    assert failed == {span.attributes.get("error.type") for span in outcome.spans}


def is_right(span: otlp.Span, answer: str, said: str) -> None:
    """The partner, and what came of it: an answer's own status, or the error that the application got."""
    assert (span.kind, span.attributes["http.request.method"]) == ("client", "GET")
    assert span.attributes["server.address"] == ADDRESS
    error = span.attributes.get("error.type")
    if answer in ("503", "429"):
        assert (error, span.attributes["http.response.status_code"]) == (answer, int(answer))
    else:
        assert (error is None) == (answer in ("200", "302"))
    assert (said == "fine") == (answer in ("200", "302")) or (answer, said) == HTTPX_MOVED


HTTPX_MOVED = ("302", "HTTPStatusError")
"""httpx follows no redirect unless it is told to, and takes one for an error."""


@pytest.mark.parametrize("way", WITH_SPANS)
def test_attempts_are_one_logical_call(way: str, other: Partner) -> None:
    """Two attempts fail, the third succeeds: a span beside theirs, linked to each, and what they cost."""
    environment, code = WITH_SPANS[way]
    outcome = run(environment, code, f"{other.url}/503-429-200/{way.replace(' ', '')}")
    (call,), attempts = outcome.logical(), outcome.calls()
    assert len(attempts) == 3 and outcome.said == ["fine"]
    assert call.links == tuple(span.span_id for span in attempts)
    assert call.attributes["saas.connector.attempts"] == 3
    assert call.attributes["saas.connector.outcome"] == "recovered"
    assert call.attributes["saas.connector.wait"] > 0.05
    assert call.attributes["server.address"] == ADDRESS
    resent = [span.attributes.get("http.request.resend_count") for span in attempts]
    assert resent == [None, 1, 2]
    (counted,) = outcome.of("saas.connector.calls")
    assert counted.attributes == {
        "server.address": ADDRESS,
        "saas.connector.outcome": "recovered",
    }
    waits = {
        p.attributes["error.type"]: p.count for p in outcome.of("saas.connector.wait.duration")
    }
    assert waits == {"503": 1, "429": 1}


@pytest.mark.parametrize("way", WITH_SPANS)
def test_a_call_that_never_succeeds_is_exhausted(way: str, other: Partner) -> None:
    """Three attempts fail: the application's error passes, the call says what the last one failed with."""
    environment, code = WITH_SPANS[way]
    outcome = run(environment, code, f"{other.url}/503/{way.replace(' ', '')}")
    (call,) = outcome.logical()
    assert len(outcome.calls()) == call.attributes["saas.connector.attempts"] == 3
    assert call.attributes["saas.connector.outcome"] == "exhausted"
    assert call.attributes["error.type"] == "503"
    assert outcome.said[0] in ("HTTPStatusError", "HTTPError", "RetryError")
    (counted,) = outcome.of("saas.connector.calls")
    assert counted.attributes["saas.connector.outcome"] == "exhausted"


@pytest.mark.parametrize("way", WITH_SPANS)
def test_a_call_that_succeeds_at_once_has_no_span_of_its_own(way: str, other: Partner) -> None:
    """One attempt, one span, no metric of retries."""
    environment, code = WITH_SPANS[way]
    outcome = run(environment, code, f"{other.url}/200/{way.replace(' ', '')}")
    assert len(outcome.spans) == 1
    assert not outcome.of("saas.connector.calls")
    assert not outcome.of("saas.connector.wait.duration")


@pytest.mark.parametrize("way", INSIDE)
@pytest.mark.parametrize(
    ("answers", "outcome_said", "reasons"),
    [("503-429-200", "recovered", {"503": 1, "429": 1}), ("503", "exhausted", {"503": 2})],
)
def test_retries_inside_of_a_request_are_said_on_its_span(
    way: str, answers: str, outcome_said: str, reasons: dict[str, int], other: Partner
) -> None:
    """urllib3's ``Retry``: one HTTP span for all attempts, which says how many, how long and how it ended."""
    environment, code = INSIDE[way]
    outcome = run(environment, code, f"{other.url}/{answers}/inside-{way.replace(', ', '-')}")
    (span,) = outcome.spans
    assert span.attributes["saas.connector.attempts"] == 3
    assert span.attributes["saas.connector.outcome"] == outcome_said
    waited = span.attributes["saas.connector.wait"]
    assert waited > (1 if "429" in answers else 0.05)  # Retry-After is kept
    assert (outcome.said != ["fine"]) == (outcome_said == "exhausted")
    (counted,) = outcome.of("saas.connector.calls")
    assert counted.attributes["saas.connector.outcome"] == outcome_said
    points = outcome.of("saas.connector.wait.duration")
    assert {p.attributes["error.type"]: p.count for p in points} == reasons
    assert sum(p.total for p in points) == pytest.approx(waited)


def test_work_that_asks_no_partner_is_not_said(other: Partner) -> None:
    """Retries around anything else, and an instrumentor that is switched off, leave nothing."""
    code = "def ask():\n    raise OSError\n" + DECORATED + ONCE
    assert run(USUAL, code, "nowhere").spans == []
    outcome = run(
        *(USUAL, HTTPX + DECORATED + ONCE, f"{other.url}/503-200/off"),
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="retries",
    )
    assert len(outcome.calls()) == len(outcome.spans) == 2
