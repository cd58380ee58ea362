"""Translation as LibreTranslate offers it, by models whose names are pairs of languages, such as en-de."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from antiphon.serving import schema
from antiphon.serving.batcher import Job
from antiphon.serving.models import Served
from antiphon.serving.refusals import BAD, UNKNOWN_KEY, WRONG, Refusal
from antiphon.serving.service import Service

NAMES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schema.FailedTranslation}, "5XX": {"model": schema.FailedTranslation}
}  # fmt: skip

Said = Callable[[Request, Service, Job], Awaitable[list[dict[str, Any]]]]


def languages(models: Mapping[str, Served]) -> dict[str, list[str]]:
    """Each source language with its targets."""
    found: dict[str, list[str]] = {}
    for name in models:
        source, hyphen, target = name.partition("-")
        if hyphen and 2 <= len(source) <= 3 and 2 <= len(target) <= 3:
            found.setdefault(source, []).append(target)
    return found


def chosen(models: Mapping[str, Served], source: str, target: str) -> tuple[str, Served]:
    """The source language and the model for it. Raises `Refusal`."""
    known = languages(models)
    if source == "auto":
        could = [language for language, targets in known.items() if target in targets]
        source = could[0] if len(could) == 1 else source
    if f"{source}-{target}" not in models or target not in known.get(source, []):
        pairs = [f"{one}-{other}" for one, others in known.items() for other in others]
        do = f"take one of {', '.join(pairs)}" if pairs else "serve a model under a name such as en-de: en-de=PATH"
        raise Refusal(BAD, "this pair of languages is not served", where="target", do=do, cause="input")
    return source, models[f"{source}-{target}"]


def make(service: Service, said: Said) -> APIRouter:
    """The routes /translate and /languages."""
    router = APIRouter(tags=["LibreTranslate"], responses=FAILURES)
    form = {"schema": {"$ref": "#/components/schemas/Translate"}}
    extra = {"requestBody": {"required": True, "content": {"application/json": form}}}

    @router.post("/translate", openapi_extra=extra, responses={200: {"model": schema.Translated}})
    async def translate(request: Request) -> Response:
        """Translate a text or several."""
        asked = await _asked(request)
        if service.keys and not (request.state.allowed or service.allowed((asked.api_key or "").encode())):
            raise Refusal(UNKNOWN_KEY, "this server wants a key", do="send api_key", cause="key")
        if asked.format != "text":
            raise Refusal(BAD, "only text is translated", where="format", do="send format=text", cause="input")
        source, model = chosen(service.models, asked.source, asked.target)
        texts = [asked.q] if isinstance(asked.q, str) else asked.q
        if not texts:
            raise Refusal(BAD, "there is nothing to translate", where="q", do="send a text", cause="input")
        search = schema.Search(model=model.name, best=asked.alternatives + 1 if asked.alternatives else None)
        job = await service.job(model, list(texts), search, service.patience(request.headers))
        return _translated(asked, source, await said(request, service, job))

    @router.get("/languages", responses={200: {"model": list[schema.Language]}})
    async def list_languages() -> Response:
        """The languages, and what each can be translated into."""
        found = [{"code": code, "name": NAMES.get(code, code), "targets": targets}
                 for code, targets in languages(service.models).items()]  # fmt: skip
        return Response(json.dumps(found), media_type="application/json")

    return router


async def _asked(request: Request) -> schema.Translate:
    """JSON, or a form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower().endswith(("form-data", "urlencoded")):
        async with request.form(max_files=0, max_fields=20) as form:
            fields: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
            texts = [text for text in form.getlist("q") if isinstance(text, str)]
        if len(texts) > 1:
            fields["q"] = texts
        others = fields.get("alternatives") or "0"
        if not others.isdecimal():
            raise Refusal(WRONG, "is not a number", where="alternatives", cause="input")
        fields["alternatives"] = min(1000, int(others[:9]))
        return schema.Translate.model_validate(fields)
    return schema.Translate.model_validate_json(await request.body())


def _translated(asked: schema.Translate, source: str, answers: list[dict[str, Any]]) -> Response:
    texts = [answer["text"] for answer in answers]
    others = [[each["text"] for each in answer["alternatives"]] for answer in answers]
    single = isinstance(asked.q, str)
    found: dict[str, Any] = {"translatedText": texts[0] if single else texts}
    if asked.alternatives:
        found["alternatives"] = others[0] if single else others
    if asked.source == "auto":
        found["detectedLanguage"] = {"confidence": 100, "language": source}
    return Response(json.dumps(found, ensure_ascii=False), media_type="application/json")
