"""Models on a Ray cluster: each replica is a whole server, with its own queue and decoding processes.

    pip install 'antiphon[ray]'
    ANTIPHON_MODELS="en-de=/models/en-de" serve run deploy.ray_serve:server

`ANTIPHON_REPLICAS` says how many there are (1), `ANTIPHON_SETTINGS` what `antiphon serve` has options for, such as
"keys=/etc/antiphon/keys timeout=10 processes=2". Ray spreads requests over replicas; limits, batches, metrics and
reloading are those of `antiphon serve`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter
from ray import serve

from antiphon.core.errors import ConfigError
from antiphon.serving import logs, models
from antiphon.serving.app import create
from antiphon.serving.service import Service
from antiphon.serving.settings import Settings


def build() -> FastAPI:
    """The application of one replica, whose models are loaded before it takes requests."""
    logs.capture()
    given = dict(word.split("=", 1) for word in os.environ.get("ANTIPHON_SETTINGS", "").split())
    if unknown := sorted(given.keys() - {each.name for each in fields(Settings)}):
        raise ConfigError("there is no such setting", where="ANTIPHON_SETTINGS", got=unknown[0])
    settings = TypeAdapter(Settings).validate_python(given)
    settings.check()
    service = Service(models.named(os.environ["ANTIPHON_MODELS"].split()), settings)
    inner: Callable[..., Awaitable[Any]] = create(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.drain()
        await service.end()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.mount("/", inner)
    return app


@serve.deployment(
    num_replicas=int(os.environ.get("ANTIPHON_REPLICAS", "1")),
    max_ongoing_requests=1000,
    graceful_shutdown_timeout_s=40,
)
@serve.ingress(build)
class Replica:
    """One server."""


server = Replica.bind()
