"""otel_shim.capture.fastapi: whoever a request belongs to, over every kind of request, all at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Annotated, Any

import anyio.to_thread
import fastapi
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Security
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from starlette.middleware.base import BaseHTTPMiddleware

import otel_shim
from otel_shim import context, counters
from otel_shim.capture import fastapi as capture
from otel_shim.capture.resolver import Resolver
from otel_shim.signals import logs as shim_logs
from tests.unit.telemetry import Telemetry

Install = Callable[..., None]
log = logging.getLogger("app")


@dataclass
class User:
    """Whoever a token belongs to."""

    id: str
    org_id: str
    role: str = "member"


class Refused(Exception):
    """An error with a handler of its own."""


async def token(request: Request) -> str:
    """The innermost dependency."""
    await asyncio.sleep(0)
    return request.headers.get("x-user", "")


def _work(who: str) -> None:
    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("work", attributes={"who": who}):
        log.info("work of %s", who, extra={"who": who})


async def get_current_user(token: Annotated[str, Depends(token)]) -> User:
    """Authentication, nested below it."""
    if not token:
        raise HTTPException(401)
    await asyncio.sleep(0)
    return User(token, f"org-{token}")


async def allowed(
    request: Request, current_user: Annotated[User, Depends(get_current_user)]
) -> None:
    """A check that only a decorator names."""
    if request.headers.get("x-forbidden"):
        raise HTTPException(403)


Who = Annotated[User, Depends(get_current_user)]
router = APIRouter(prefix="/router", dependencies=[Depends(get_current_user)])


@router.get("/thing/{thing}")
async def in_router(request: Request, thing: str) -> str:
    """An endpoint that never asks who it is for: its router does."""
    _work(request.headers["x-user"])
    return thing


class Around(BaseHTTPMiddleware):
    """The middleware that runs the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        if who := request.headers.get("x-user"):
            log.info("answered", extra={"who": who})
        return response


def make_app() -> FastAPI:
    """An application with every kind of request."""
    app = FastAPI()
    app.add_middleware(Around)
    app.include_router(router)
    mounted = FastAPI()
    app.mount("/mounted", mounted)

    @app.get("/async")
    async def asynchronous(user: Who) -> str:
        _work(user.id)
        await asyncio.gather(
            asyncio.to_thread(_work, user.id), anyio.to_thread.run_sync(_work, user.id)
        )
        return user.id

    @app.get("/sync")
    def synchronous(user: Who) -> str:
        _work(user.id)
        return user.id

    @app.get("/bound")
    async def bound(request: Request) -> str:
        who = request.headers["x-user"]
        otel_shim.bind(org_id=f"org-{who}", user_id=who)
        _work(who)
        return who

    @app.get("/state")
    async def state(request: Request) -> str:
        who = request.headers["x-user"]
        request.state.user = SimpleNamespace(id=who, org_id=f"org-{who}")
        return who

    @app.get("/forbidden", dependencies=[Depends(allowed)])
    async def forbidden() -> None: ...

    @app.get("/stream")
    async def stream(user: Who) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for _ in range(3):
                await asyncio.sleep(0)
                _work(user.id)
                yield user.id

        return StreamingResponse(chunks())

    @app.get("/sync-stream")
    def sync_stream(user: Who) -> StreamingResponse:
        def chunks() -> Iterator[str]:
            for _ in range(3):
                _work(user.id)
                yield user.id

        return StreamingResponse(chunks())

    @app.get("/background")
    async def background(user: Who, tasks: BackgroundTasks) -> str:
        async def later() -> None:
            await asyncio.sleep(0)
            _work(user.id)

        tasks.add_task(later)
        tasks.add_task(_work, user.id)
        return user.id

    @app.get("/refused")
    async def refused(user: Who) -> None:
        raise Refused(user.id)

    @app.get("/broken")
    async def broken(user: Who) -> None:
        raise ArithmeticError(user.id)

    @app.get("/teapot")
    async def teapot(user: Who) -> None:
        raise HTTPException(418)

    @app.exception_handler(Refused)
    async def on_refused(request: Request, error: Refused) -> JSONResponse:
        _work(str(error))
        return JSONResponse({}, 409)

    @mounted.get("/inner")
    async def inner(user: Who) -> str:
        _work(user.id)
        return user.id

    return app


KINDS = {
    "/async": 200,
    "/sync": 200,
    "/bound": 200,
    "/state": 200,
    "/router/thing/1": 200,
    "/forbidden": 403,
    "/stream": 200,
    "/sync-stream": 200,
    "/background": 200,
    "/refused": 409,
    "/broken": 500,
    "/teapot": 418,
    "/mounted/inner": 200,
}


@contextlib.asynccontextmanager
async def client(
    app: Any, address: tuple[str, int] = ("127.0.0.1", 9)
) -> AsyncIterator[httpx.AsyncClient]:
    """A client in this process, with a fixed address."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=address)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as made:
        yield made


def _servers(telemetry: Telemetry) -> list[ReadableSpan]:
    return [s for s in telemetry.spans() if s.kind is SpanKind.SERVER]


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def _trace(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


@pytest.fixture
def app_logs(telemetry: Telemetry, logging_restored: None) -> None:
    """Log records of the application as the distro takes them."""
    shim_logs.take_records("text", "app")
    log.setLevel(logging.INFO)
    log.addHandler(logging.NullHandler())
    log.propagate = False


async def test_two_hundred_requests_at_once(
    shim_fastapi: Install, telemetry: Telemetry, app_logs: None
) -> None:
    """Every span and log of a request carries its own identity only, and every response both ids."""
    shim_fastapi()
    paths = (list(KINDS) * 20)[:200]

    async def one(http: httpx.AsyncClient, n: int) -> httpx.Response:
        return await http.get(paths[n], headers={"x-user": f"u{n}", "x-request-id": f"r{n}"})

    async with client(make_app()) as http:
        responses = await asyncio.gather(*(one(http, n) for n in range(200)))

    servers = {_attributes(s)["saas.request.id"]: s for s in _servers(telemetry)}
    assert len(_servers(telemetry)) == len(servers) == 200
    hashes = set()
    for n, response in enumerate(responses):
        assert response.status_code == KINDS[paths[n]] if paths[n] != "/forbidden" else True
        assert response.headers.get_list("x-request-id") == [f"r{n}"]
        server = servers[f"r{n}"]
        assert response.headers.get_list("x-trace-id") == [f"{_trace(server):032x}"]
        attributes = _attributes(server)
        assert attributes["saas.org.id"] == f"org-u{n}", paths[n]
        assert attributes["saas.actor.type"] == "user"
        hashes.add(attributes["user.hash"])
    assert len(hashes) == 200
    _assert_all_own(telemetry, {_trace(s): i[1:] for i, s in servers.items()})
    assert telemetry.started() == len(telemetry.spans())
    assert counters.snapshot().get("internal_errors") is None
    assert counters.snapshot().get("identity_conflicts") is None


def _assert_all_own(telemetry: Telemetry, owners: dict[int, str]) -> None:
    """Each span and record of a trace has the identity of its one owner."""
    works = [s for s in telemetry.spans() if s.name == "work"]
    assert len(works) > 200
    for span in works:
        attributes, n = _attributes(span), owners[_trace(span)]
        assert (attributes["who"], attributes["saas.request.id"]) == (f"u{n}", f"r{n}")
        assert attributes["saas.org.id"] == f"org-u{n}"
    records = [r for r in telemetry.records() if "who" in r.attributes]
    assert len(records) > 400
    for record in records:
        n = owners[record.trace_id]
        assert (record.attributes["who"], record.attributes["saas.request.id"]) == (
            f"u{n}",
            f"r{n}",
        )
        # What an endpoint leaves in its state is found when its response starts, after the middleware.
        late = record.body == "answered" and record.attributes["http.route"] == "/state"
        assert record.attributes.get("saas.org.id") == (None if late else f"org-u{n}")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/async", "GET", 401),
        ("/nowhere", "GET", 404),
        ("/async", "POST", 405),
        ("/openapi.json", "GET", 200),
    ],
)
async def test_nobody_is_anonymous(
    shim_fastapi: Install, telemetry: Telemetry, path: str, method: str, status: int
) -> None:
    """A request that ends without authentication says so, and has its ids like any other."""
    shim_fastapi()
    async with client(make_app()) as http:
        response = await http.request(method, path)
    assert response.status_code == status
    (server,) = _servers(telemetry)
    attributes = _attributes(server)
    assert attributes["saas.actor.type"] == "anonymous"
    assert "saas.org.id" not in attributes and "user.hash" not in attributes
    assert attributes["saas.request.id"] == response.headers["x-request-id"]
    assert response.headers["x-trace-id"] == f"{_trace(server):032x}"
    assert attributes.get("saas.error.code") == (str(status) if status >= 400 else None)
    assert attributes["saas.operation"] == "http.request"


async def test_identity_known_before_a_403(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """Dependencies solved before the refusal count, decorator-level and nested ones too."""
    shim_fastapi()
    async with client(make_app()) as http:
        response = await http.get("/forbidden", headers={"x-user": "ada", "x-forbidden": "1"})
    assert response.status_code == 403
    (server,) = _servers(telemetry)
    assert _attributes(server)["saas.org.id"] == "org-ada"
    assert _attributes(server)["saas.error.code"] == "403"


async def test_error_keeps_its_ids_and_code(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """An unhandled error is answered with both ids, raised unchanged, and never described on the span."""
    shim_fastapi()
    app = make_app()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        with pytest.raises(ArithmeticError, match="ada"):
            await http.get("/broken", headers={"x-user": "ada"})
    (server,) = _servers(telemetry)
    assert _attributes(server)["saas.error.code"] == "500"
    assert server.status.description is None and server.events == ()


async def test_own_error_code(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """The application's own code, left in ``request.state``, comes before the status."""
    shim_fastapi()
    app = FastAPI()

    @app.get("/")
    async def quota(request: Request) -> None:
        request.state.error_code = "quota_exceeded"
        raise HTTPException(429)

    async with client(app) as http:
        await http.get("/")
    assert _attributes(_servers(telemetry)[0])["saas.error.code"] == "quota_exceeded"


# --- sources ---------------------------------------------------------------------------------------------


async def _ask(app: FastAPI, path: str = "/", **headers: str) -> httpx.Response:
    async with client(app) as http:
        return await http.get(path, headers=headers)


async def test_configured_sources_in_order(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """The first source of the list that has a value wins, whenever the others are found."""
    shim_fastapi(
        OTEL_SHIM_ORG_ID="dependency:late.org,state:org,path:org", OTEL_SHIM_USER_ID="user:name"
    )
    app = FastAPI()

    async def early(request: Request) -> None:
        request.state.org = "from-state"
        request.scope["user"] = SimpleNamespace(name="ada")

    async def late() -> dict[str, str]:
        return {"org": "from-dependency"}

    @app.get("/{org}", dependencies=[Depends(early)])
    async def endpoint(org: str, late: Any = Depends(late)) -> None: ...  # noqa: B008

    await _ask(app, "/from-path")
    assert telemetry.span("GET /{org}")["saas.org.id"] == "from-dependency"
    assert "user.hash" in telemetry.span("GET /{org}")


async def test_path_counts_after_authentication_only(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """Whoever is refused is not put into the organisation that the path names."""
    shim_fastapi(OTEL_SHIM_ORG_ID="path:org")
    app = FastAPI()

    async def check(request: Request) -> None:
        if "x-user" not in request.headers:
            raise HTTPException(401)

    @app.get("/{org}", dependencies=[Depends(check)])
    async def endpoint(org: str) -> None: ...

    assert (await _ask(app, "/acme")).status_code == 401
    assert "saas.org.id" not in telemetry.span("GET /{org}")
    telemetry.clear()
    assert (await _ask(app, "/acme", **{"x-user": "ada"})).status_code == 200
    assert telemetry.span("GET /{org}")["saas.org.id"] == "acme"


@pytest.mark.parametrize(
    "shape",
    [
        {"id": 1, "org_id": 42},
        SimpleNamespace(id=1, tenant_id=42),
        SimpleNamespace(user_id=1, account_id="42"),
        SimpleNamespace(sub="1", organization_id=42),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["current_user", "user"])
async def test_default_sources_know_the_usual_shapes(
    shim_fastapi: Install, telemetry: Telemetry, shape: Any, name: str
) -> None:
    """An application that configures nothing has identity."""
    shim_fastapi()
    app = FastAPI()
    namespace: dict[str, Any] = {"Depends": Depends, "find": lambda: shape}
    exec(f"def endpoint({name}=Depends(find)): return None", namespace)  # a parameter of that name
    app.get("/")(namespace["endpoint"])
    await _ask(app)
    found = telemetry.span("GET /")
    assert found["saas.org.id"] == "42" and "user.hash" in found


async def test_generator_overridden_and_scoped_dependencies(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """However a dependency is written, its result counts; an override stands for what it overrides."""
    shim_fastapi()
    app = FastAPI()

    def get_current_user() -> Iterator[User]:
        yield User("ada", "acme")

    async def tenant() -> AsyncIterator[Any]:
        yield SimpleNamespace(plan="pro")

    def replaced() -> User:
        raise AssertionError("overridden")

    @app.get("/a")
    def a(u: Any = Security(get_current_user), t: Any = Depends(tenant)) -> None: ...  # noqa: B008

    @app.get("/b")
    def b(current_user: Any = Depends(replaced)) -> None: ...  # noqa: B008

    app.dependency_overrides[replaced] = lambda: User("bob", "globex")
    await _ask(app, "/a")
    await _ask(app, "/b")
    assert telemetry.span("GET /a")["saas.org.id"] == "acme"
    assert telemetry.span("GET /a")["saas.plan"] == "pro"
    assert telemetry.span("GET /b")["saas.org.id"] == "globex"


async def test_middleware_that_copies_the_scope(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """What pure ASGI middleware puts into a copy of the scope is found by the endpoint's solver."""
    shim_fastapi()
    inner = FastAPI()

    @inner.get("/")
    async def endpoint() -> None: ...

    class Authenticate:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            user = SimpleNamespace(id="ada", org_id="acme")
            await self.app({**scope, "user": user}, receive, send)

    inner.add_middleware(Authenticate)
    await _ask(inner)
    assert telemetry.span("GET /")["saas.org.id"] == "acme"


async def test_bind_goes_over_what_was_found(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """Support staff that acts for another organisation binds it: no conflict."""
    shim_fastapi()
    app = FastAPI()

    @app.get("/")
    async def endpoint(user: Who) -> None:
        otel_shim.bind(org_id="customer")

    await _ask(app, **{"x-user": "ada"})
    assert telemetry.span("GET /")["saas.org.id"] == "customer"
    assert counters.snapshot() == {}


async def test_hostile_results_harm_nothing(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """A dependency result that raises at every touch is only passed on."""
    shim_fastapi()
    app = FastAPI()

    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("touched")

    @app.get("/")
    async def endpoint(current_user: Any = Depends(Hostile)) -> int:  # noqa: B008
        return 7

    response = await _ask(app)
    assert (response.status_code, response.json()) == (200, 7)
    assert telemetry.span("GET /")["saas.actor.type"] == "anonymous"
    assert counters.snapshot() == {}


async def test_matched_source_is_logged_once(
    shim_fastapi: Install, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator learns where identity comes from, once for each field."""
    shim_fastapi()
    app = make_app()
    with caplog.at_level(logging.INFO, "otel_shim"):
        for _ in range(3):
            await _ask(app, "/async", **{"x-user": "ada"})
    lines = [r.getMessage() for r in caplog.records if r.name == "otel_shim"]
    assert lines.count("org_id is taken from dependency:get_current_user.org_id") == 1 or (
        lines.count("org_id is taken from dependency:user.org_id") == 1
    )
    assert len(lines) == len(set(lines)) == 3


# --- request ids -----------------------------------------------------------------------------------------


async def test_malformed_incoming_id_is_replaced(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """What is too long or has other characters is not taken over."""
    shim_fastapi()
    app = make_app()
    for bad in ("x" * 56, "a b", "<script>", ""):
        telemetry.clear()
        response = await _ask(app, "/openapi.json", **{"x-request-id": bad})
        made = response.headers.get_list("x-request-id")
        assert len(made) == 1 and len(made[0]) == 36 and made[0][14] == "7"
        assert _attributes(_servers(telemetry)[0])["saas.request.id"] == made[0]


async def test_own_response_header_is_adopted(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """The application's id is the request's: one header, and the same on the span."""
    shim_fastapi()
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> PlainTextResponse:
        return PlainTextResponse("x", headers={"X-Request-ID": "own-1"})

    response = await _ask(app, **{"x-request-id": "theirs"})
    assert response.headers.get_list("x-request-id") == ["own-1"]
    assert telemetry.span("GET /")["saas.request.id"] == "own-1"


async def test_headers_are_exposed_to_browsers(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """Where a response allows another origin, it may read the ids; else nothing is added."""
    shim_fastapi()
    app = FastAPI()
    from starlette.middleware.cors import CORSMiddleware

    app.add_middleware(CORSMiddleware, allow_origins=["*"], expose_headers=["X-Own"])
    plain = await _ask(app, "/")
    assert "access-control-expose-headers" not in plain.headers
    response = await _ask(app, "/", origin="http://other")
    exposed = ",".join(response.headers.get_list("access-control-expose-headers"))
    assert {name.strip() for name in exposed.split(",")} == {"X-Own", "X-Request-Id", "X-Trace-Id"}


# --- callers -----------------------------------------------------------------------------------------------

_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("address", "continued", "edge"),
    [
        (("127.0.0.1", 9), True, True),
        (("10.0.0.1", 9), True, True),
        (("172.20.0.1", 9), True, False),
        (("8.8.8.8", 9), False, False),
        (("10.0.0.1", 0), False, False),
    ],
)
async def test_callers_trace_context(
    shim_fastapi: Install,
    telemetry: Telemetry,
    address: tuple[str, int],
    continued: bool,
    edge: bool,
) -> None:
    """Trusted: continued. Private: continued behind an edge. Public or forwarded: a new trace, linked."""
    shim_fastapi(OTEL_SHIM_TRUSTED_PEERS="172.20.0.0/16")
    async with client(make_app(), address) as http:
        await http.get("/openapi.json", headers={"traceparent": _PARENT})
    (server,) = _servers(telemetry)
    theirs = int(_PARENT.split("-")[1], 16)
    assert (_trace(server) == theirs) is continued
    assert (server.parent is not None) is continued
    assert [link.context.trace_id for link in server.links] == ([] if continued else [theirs])
    assert _attributes(server).get("saas.identity.edge") == (True if edge else None)


async def test_no_trace_context_no_edge(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """A request that brings no context is a plain root."""
    shim_fastapi()
    await _ask(make_app(), "/openapi.json", baggage="saas.org.id=evil")
    (server,) = _servers(telemetry)
    assert server.parent is None and server.links == ()
    assert "saas.identity.edge" not in _attributes(server)
    assert "saas.org.id" not in _attributes(server)


# --- as it was ---------------------------------------------------------------------------------------------


async def test_websocket(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """A connection is one request: its identity reaches what follows, its ids the handshake."""
    shim_fastapi()
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(
        websocket: fastapi.WebSocket, user: Annotated[User, Depends(_fixed)]
    ) -> None:
        await websocket.accept()
        _work(user.id)
        await websocket.close()

    sent: list[Any] = []
    incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 2), "root_path": "", "scheme": "ws", "subprotocols": []}  # fmt: skip
    await app(scope, receive, send)
    accept = {bytes(k): v for k, v in sent[0]["headers"]}
    work = telemetry.span("work")
    assert work["saas.org.id"] == "acme"
    assert accept[b"x-request-id"].decode() == work["saas.request.id"]
    assert len(accept[b"x-trace-id"]) == 32


def _fixed() -> User:
    return User("ada", "acme")


async def test_refused_websocket(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """A handshake that is answered like a request has both ids as well."""
    shim_fastapi()
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: fastapi.WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", 403))

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 2), "root_path": "", "scheme": "ws", "subprotocols": [],
             "extensions": {"websocket.http.response": {}}}  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["type"] == "websocket.http.response.start"
    assert {b"x-request-id", b"x-trace-id"} <= {bytes(k) for k, _ in sent[0]["headers"]}


async def test_an_actor_without_an_id_is_not_anonymous(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """Whoever says that it is an API key stays one, also where its id is not known."""
    shim_fastapi()
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        otel_shim.bind(actor_type="api_key")

    await _ask(app)
    assert telemetry.span("GET /")["saas.actor.type"] == "api_key"


async def test_lifespan_passes(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """Start and stop of the application are no requests."""
    shim_fastapi()
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    app = FastAPI(lifespan=lifespan)
    async with app.router.lifespan_context(app):
        pass
    assert seen == ["up", "down"]


async def test_applications_own_telemetry_settings_win(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """Spans of operations are off by default, and on where the application asks for them."""
    shim_fastapi()
    for settings, spans in ((None, 1), ({"operation_spans": True}, 3)):
        telemetry.clear()
        app = FastAPI(telemetry=settings)  # type: ignore[arg-type]

        @app.get("/")
        async def endpoint() -> int:
            return 1

        await _ask(app)
        assert len(telemetry.spans()) >= spans if settings else len(telemetry.spans()) == spans
        assert len(_servers(telemetry)) == 1


async def test_without_telemetry_ids_are_still_there(
    shim_fastapi: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is traced a response has its request id, and no trace id of nothing."""
    shim_fastapi()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    response = await _ask(make_app(), "/async", **{"x-user": "ada"})
    assert response.status_code == 200
    assert len(response.headers["x-request-id"]) == 36
    assert "x-trace-id" not in response.headers


async def test_request_is_freed_when_it_ends(shim_fastapi: Install, telemetry: Telemetry) -> None:
    """What a request held (its state may hold a session) goes without waiting for the collector."""
    shim_fastapi()
    app = FastAPI()
    held: list[weakref.ref[Any]] = []

    @app.get("/")
    async def endpoint(request: Request) -> None:
        request.state.thing = User("ada", "acme")
        root = context.current_root()
        held.extend([weakref.ref(request.state.thing), weakref.ref(root)])

    await _ask(app)
    gc.collect()
    held.clear()
    gc.disable()
    try:
        await _ask(app)
        alive = [ref() for ref in held]
    finally:
        gc.enable()
    assert alive == [None, None]
    assert otel_shim.current_identity() == otel_shim.Identity()


def test_watched_names_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes made on the fly cannot grow the memory of names without bound."""
    monkeypatch.setattr(capture, "_MAX_ROUTES", 10)
    watched = capture._WatchedNames(Resolver(()))
    dependants = [SimpleNamespace(dependencies=[]) for _ in range(25)]
    for dependant in dependants:
        assert watched.of(dependant) is watched.of(dependant)
    assert len(watched._by_dependant) <= 10


async def test_older_fastapi_without_a_cache(
    shim_fastapi: Install, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the solver has no cache to watch, that is said, and the application is left as it is."""

    async def solve_dependencies(*, request: Any, dependant: Any) -> None: ...

    module = SimpleNamespace(solve_dependencies=solve_dependencies)
    capture._watch_solver(module, Resolver(()))
    assert module.solve_dependencies is solve_dependencies
    assert "no dependency cache" in caplog.text


async def test_switched_off(
    telemetry: Telemetry, edge_propagation: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a capture FastAPI's own telemetry is off too, unless the application asks for it."""
    monkeypatch.setattr(FastAPI, "__init__", FastAPI.__init__)
    capture.install(None, Resolver(()))
    await _ask(make_app(), "/openapi.json")
    assert telemetry.spans() == ()
    await _ask(FastAPI(telemetry={"tracing": True}), "/openapi.json")
    assert len(_servers(telemetry)) == 1


def test_version_decides_who_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI traces itself from 0.142 on; without FastAPI nobody does."""

    def missing(_: str) -> str:
        raise PackageNotFoundError

    for found, own in ((lambda _: "0.141.9", False), (lambda _: "0.142.0", True), (missing, False)):
        monkeypatch.setattr(capture, "version", found)
        assert capture.has_own_telemetry() is own


async def test_a_key_is_a_machine_unless_a_person_asks(
    shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """The record of an API key names organisation and actor; a user beside it goes over it."""
    shim_fastapi()
    app = FastAPI()

    def get_api_key() -> dict[str, str]:
        return {"id": "key-7", "org_id": "acme"}

    def current_user() -> dict[str, str]:
        return {"id": "ada", "org_id": "acme"}

    @app.get("/key", dependencies=[Depends(get_api_key)])
    async def key() -> None: ...

    @app.get("/both", dependencies=[Depends(get_api_key), Depends(current_user)])
    async def both() -> None: ...

    await _ask(app, "/key")
    machine = telemetry.span("GET /key")
    assert machine["saas.org.id"] == "acme" and machine["saas.actor.type"] == "api_key"
    assert "saas.actor.hash" in machine and "user.hash" not in machine
    await _ask(app, "/both")
    person = telemetry.span("GET /both")
    assert person["saas.actor.type"] == "user" and "user.hash" in person
    assert "saas.actor.hash" not in person
