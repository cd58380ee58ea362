"""The HTTP application: routes and what they answer. Everything a route does beside that is elsewhere."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

import antiphon
from antiphon.core.errors import AntiphonError
from antiphon.inference.chat import conversation
from antiphon.serving import models, schema
from antiphon.serving.batcher import Job
from antiphon.serving.edge import App, Edge, broken, refused
from antiphon.serving.libretranslate import make as make_libretranslate
from antiphon.serving.models import Served
from antiphon.serving.refusals import BAD, GONE, MISSING, WRONG, Refusal, wrong
from antiphon.serving.service import Service
from antiphon.serving.streams import Events, answer

T = TypeVar("T", bound=BaseModel)

HERE = Path(__file__).parent
DOCS, PAGE = HERE / "docs", HERE / "page"
FAILURES: dict[int | str, dict[str, Any]] = {"4XX": {"model": schema.Failed}, "5XX": {"model": schema.Failed}}


def create(service: Service) -> App:
    """The application of a service that is started and ended by somebody else."""
    app = FastAPI(
        title="Antiphon",
        version=antiphon.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_still,
        redirect_slashes=False,  # a redirect would go wherever the request's Host header says
    )
    app.include_router(make_health(service))
    app.include_router(make_api(service))
    app.include_router(make_libretranslate(service, said))
    _serve_pages(app)
    for kind in (RequestValidationError, ValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _refused)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    wrapped: Any = Edge(app, service)
    if service.settings.cors:
        wrapped = CORSMiddleware(wrapped, service.settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"])
    return wrapped


@contextlib.asynccontextmanager
async def _still(app: FastAPI) -> AsyncIterator[None]:
    yield


async def _refused(request: Request, error: Exception) -> Response:
    """What went wrong, in the one form of errors, without quoting the request."""
    if isinstance(error, Refusal):
        return refused(request.scope, error)
    if isinstance(error, RequestValidationError | ValidationError):
        return refused(request.scope, _invalid(error.errors()))
    if isinstance(error, HTTPException):
        found = Refusal(error.status_code, str(error.detail).lower(), do="see /docs", cause="http")
        found.headers = {**(error.headers or {})}
        return refused(request.scope, found)
    if isinstance(error, ClientDisconnect):
        return refused(request.scope, Refusal(GONE, "the client left", cause="left"))
    return broken(request.scope)


def _invalid(errors: Any) -> Refusal:
    first = errors[0]
    where = ".".join(str(step)[:40] for step in first["loc"] if step not in ("body", "str", "Given"))
    unknown = first["type"] == "extra_forbidden"
    broken = first["type"] == "json_invalid"
    what = "unknown field" if unknown else "is not valid JSON" if broken else first["msg"][:200]
    return Refusal(BAD if broken else WRONG, what, where=ascii(where)[1:-1], do="see /docs", cause="input")


def reading(kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """What reads a JSON body strictly: no NaN, no lone surrogates, bounded depth."""

    async def read(request: Request) -> T:
        return kind.model_validate_json(await request.body())

    return read


def wanting(kind: type[BaseModel], *more: str) -> dict[str, Any]:
    """The part of the OpenAPI description that says what a body is, and which other types of content are read."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    content |= {name: {"schema": {"type": "string"}} for name in more}
    return {"requestBody": {"required": True, "content": content}}


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the bodies that routes read by themselves."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes,
                            description="Sequence-to-sequence models over HTTP.")  # fmt: skip
        kinds: list[Any] = [schema.Predict, schema.Stream, schema.Explore, schema.Chat, schema.Translate]
        _, bodies = models_json_schema([(kind, "validation") for kind in kinds],
                                       ref_template="#/components/schemas/{model}")  # fmt: skip
        found.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
        app.openapi_schema = found
    return app.openapi_schema


async def said(request: Request, service: Service, job: Job) -> list[dict[str, Any]]:
    """The answers to a job, booked."""
    return booked(request, service, job, await answer(service, job, request.receive))


def booked(request: Request, service: Service, job: Job, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers in a result, with what is told of them to metrics and log."""
    answers: list[dict[str, Any]] = result["answers"]
    for each, (source, target) in zip(answers, result["counts"], strict=True):
        service.metrics.answer(job.model, each, source, target)
    request.state.facts |= {"model": job.model, "inputs": len(job.inputs), "cost": job.cost}
    request.state.facts |= {"tokens": [sum(column) for column in zip(*result["counts"], strict=True)]}
    if service.settings.log_text:
        request.state.facts |= {"sources": [row["source"] for row in job.inputs], "texts": [a["text"] for a in answers]}
    return answers


def reply(content: Any) -> Response:
    """JSON, as it is."""
    return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")


def make_health(service: Service) -> APIRouter:
    """Whether the server lives, whether it accepts requests, and how it does."""
    router = APIRouter(tags=["health"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok", "version": antiphon.__version__}

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses={503: {"description": "not yet, or no more"}})
    async def readyz() -> Response:
        """Requests are accepted: the models have answered something, and the server does not end."""
        state = "ready" if service.ready else "draining" if service.draining else "loading"
        body = {"status": state, "models": list(service.models), "processes": len(service.fleet.processes)}
        return Response(json.dumps(body), 200 if service.ready else 503, media_type="application/json")

    @router.get("/metrics", responses={**FAILURES, 200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def make_api(service: Service) -> APIRouter:
    """The API under /v1."""
    router = APIRouter(prefix="/v1", responses=FAILURES, dependencies=[Depends(_query)])
    router.include_router(_asking(service))
    router.include_router(_looking(service))
    return router


async def _query(request: Request) -> None:
    """Refuse what a query says that nobody reads."""
    known = {"model"} if request.url.path == "/v1/predict" else set()
    if unknown := sorted(set(request.query_params) - known):
        raise Refusal(WRONG, "there is no such parameter", where=ascii(unknown[0][:40]), do="see /docs", cause="input")


def _asking(service: Service) -> APIRouter:
    router = APIRouter(tags=["answers"])
    lines: dict[int | str, dict[str, Any]] = {200: {"model": schema.Predicted, "content": {"text/plain": {}}}}

    @router.post("/predict", openapi_extra=wanting(schema.Predict, "text/plain"), responses=lines)
    async def predict(request: Request, model: str | None = None) -> Response:
        """Answer inputs. As text/plain: an input a line, an answer a line, from the model that the query names."""
        plain = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/plain"
        body = await request.body()
        asked = _lines(body, model) if plain else schema.Predict.model_validate_json(body)
        served = models.find(service.models, asked.model if asked.model is not None else model)
        job = await service.job(served, asked.inputs, asked, service.patience(request.headers))
        answers = await said(request, service, job)
        if plain:
            text = "".join(each["text"].replace("\n", " ") + "\n" for each in answers)
            return Response(text, media_type="text/plain; charset=utf-8")
        return reply({"model": served.name, "answers": answers})

    @router.post("/stream", openapi_extra=wanting(schema.Stream),
                 responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
    async def stream(request: Request, asked: Annotated[schema.Stream, Depends(reading(schema.Stream))]) -> Response:
        """Answer one input as server-sent events: `partial` as the answer grows, then `answer` (or `error`)."""
        served = models.find(service.models, asked.model)
        job = await service.job(served, asked.inputs, asked, service.patience(request.headers), stream=True)
        return Events(service, job, lambda result: booked(request, service, job, result)[0])

    both: dict[int | str, dict[str, Any]] = {200: {"model": schema.Predicted, "content": {"text/event-stream": {}}}}

    @router.post("/chat", openapi_extra=wanting(schema.Chat), responses=both)
    async def chat(request: Request, asked: Annotated[schema.Chat, Depends(reading(schema.Chat))]) -> Response:
        """Answer the last of some turns; with `stream` as server-sent events, as /v1/stream does."""
        served = models.find(service.models, asked.model)
        try:
            pair = conversation(served.task, asked.turns, asked.speaker, asked.partner)
        except AntiphonError as error:
            raise wrong(error, "turns") from None
        search, given = schema.Search(adapter=asked.adapter), schema.Given(source=pair.source, context=asked.context)
        job = await service.job(served, [given], search, service.patience(request.headers), stream=asked.stream)
        if asked.stream:
            return Events(service, job, lambda result: booked(request, service, job, result)[0])
        return reply({"model": served.name, "answers": await said(request, service, job)})

    return router


def _lines(body: bytes, model: str | None) -> schema.Predict:
    try:
        text = body.decode("utf-8-sig")  # as files are read
    except UnicodeDecodeError:
        raise Refusal(WRONG, "the text is not UTF-8", where="body", do="convert it", cause="input") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    return schema.Predict(inputs=list(lines), model=model)


def _looking(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/models", tags=["models"], responses={200: {"model": schema.Models}})
    async def list_models() -> Response:
        """The models, and what they can do."""
        return reply({"models": [model.about(service.settings) for model in service.models.values()]})

    @router.post("/explore", tags=["answers"], openapi_extra=wanting(schema.Explore),
                 responses={200: {"model": schema.ExploredAnswer}})  # fmt: skip
    async def explore(request: Request, asked: Annotated[schema.Explore, Depends(reading(schema.Explore))]) -> Response:
        """What may come next after a beginning, and where it leads."""
        served = models.find(service.models, asked.model)
        job = await service.exploration(served, asked, service.patience(request.headers))
        result = await answer(service, job, request.receive)
        return reply(result["explored"])

    @router.post("/files", tags=["answers"], responses={200: {"model": schema.Answered}})
    async def files(
        request: Request, file: Annotated[UploadFile, File(description="a recording, a film or an array (.npy)")],
        model: Annotated[str | None, Form()] = None, adapter: Annotated[str | None, Form()] = None,
        beam: Annotated[int | None, Form(ge=1)] = None, best: Annotated[int | None, Form(ge=1)] = None,
        details: Annotated[bool, Form()] = False,
        context: Annotated[str, Form(description="what else the model reads, by column, as a JSON object")] = "{}",
    ) -> Response:  # fmt: skip
        """Answer a file; where there are times, with those of words."""
        known = {"file", "model", "adapter", "beam", "best", "details", "context"}
        if unknown := sorted(set(await request.form()) - known):
            raise Refusal(WRONG, "there is no such field", where=ascii(unknown[0][:40]), do="see /docs", cause="input")
        served, suffix = models.find(service.models, model), Path(file.filename or "").suffix.lower()
        with tempfile.TemporaryDirectory(dir=service.folder.name) as folder:
            path = await _kept(file, Path(folder), suffix, served, service)
            search = schema.Search(model=served.name, adapter=adapter, beam=beam, best=best, details=details)
            job = await service.file(served, path, _columns(context), search, service.patience(request.headers))
            return reply((await said(request, service, job))[0])

    return router


def _columns(text: str) -> dict[str, str]:
    """The context columns of a form."""
    try:
        return TypeAdapter(dict[str, str]).validate_json(text)
    except ValidationError:
        do = 'write it as {"column": "value"}'
        raise Refusal(WRONG, "context is no object of texts", where="context", got=ascii(text[:40]), do=do,
                      cause="input") from None  # fmt: skip


async def _kept(file: UploadFile, folder: Path, suffix: str, model: Served, service: Service) -> Path:
    """An uploaded file in a folder, under a name that is not the client's."""
    known = any(suffix in kinds for kinds in models.SUFFIXES.values())
    path = folder / f"file{suffix if known else ''}"
    size = 0
    with path.open("wb") as target:
        while part := await file.read(1 << 20):
            target.write(part)
            size += len(part)
    if not size:
        raise Refusal(WRONG, "the file is empty", where="file", do="send a whole one", cause="input")
    return path


def _serve_pages(app: FastAPI) -> None:
    """The web page at / and /page, and the documentation at /docs; nothing is fetched from elsewhere."""

    async def index() -> Response:
        if not (PAGE / "index.html").is_file():
            raise Refusal(MISSING, "this server has no page", do="see /docs", cause="http")
        return FileResponse(PAGE / "index.html")

    def serve(file: Path) -> Callable[[], Awaitable[Response]]:
        async def get() -> Response:
            return FileResponse(file)

        return get

    for path in ("/", "/page"):
        app.add_api_route(path, index, methods=["GET", "HEAD"], include_in_schema=False)
    for file in sorted(PAGE.glob("*.*")):
        app.add_api_route(f"/{file.name}", serve(file), include_in_schema=False)
    for path in ("/docs", "/docs/"):
        app.add_api_route(path, serve(DOCS / "index.html"), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs", StaticFiles(directory=DOCS))
    app.mount("/page", StaticFiles(directory=PAGE, html=True, check_dir=False))
