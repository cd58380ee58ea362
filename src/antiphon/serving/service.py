"""What stands between HTTP and the processes: requests become jobs, models are loaded again, the end is orderly."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from antiphon.core.config import Decoding
from antiphon.core.errors import AntiphonError, ConfigError
from antiphon.data.corpus import Pair
from antiphon.serving import models
from antiphon.serving.batcher import Job
from antiphon.serving.fleet import Fleet
from antiphon.serving.logs import tell
from antiphon.serving.metrics import Metrics
from antiphon.serving.models import Served
from antiphon.serving.refusals import WRONG, Refusal
from antiphon.serving.schema import Explore, Given, Search
from antiphon.serving.settings import Settings

LARGE = 1 << 15
"""Characters whose tokens are counted beside the event loop."""


class Service:
    """One server's models and processes. Reads the models at once; `start` loads them."""

    def __init__(self, paths: Mapping[str, tuple[Path, ...]], settings: Settings) -> None:
        settings.check()
        self.settings, self.metrics, self.keys = settings, Metrics(), _keys(settings.keys)
        self.folder = tempfile.TemporaryDirectory(prefix="antiphon-serve-")
        self.models: dict[str, Served] = {}
        try:
            for name, own in paths.items():
                self.models[name] = models.read(name, own, Path(self.folder.name))
        except BaseException:
            self.folder.cleanup()
            raise
        self.fleet = Fleet(settings, self.metrics)
        self.seen: dict[str, object] = {name: model.signature for name, model in self.models.items()}
        self.loading, self.draining, self.open = asyncio.Lock(), False, 0
        """`open` counts the requests that came and are not over."""
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return bool(self.fleet.processes) and not self.draining

    async def start(self) -> None:
        """Load the models and look after them from now on. Raises `BundleError`."""
        await self.fleet.load(self.models)
        for model in self.models.values():
            self.metrics.info.labels(model.name, model.sha256).set(1)
        self.tasks = [asyncio.create_task(self.fleet.watch())]
        if self.settings.watch:
            self.tasks.append(asyncio.create_task(self._look()))
        self.metrics.ready.set(1)
        tell("ready", models=list(self.models), processes=self.fleet.size)

    async def end(self) -> None:
        """End all processes, whatever they are at."""
        self.draining = True
        for task in self.tasks:
            task.cancel()
        await self.fleet.end()
        self.folder.cleanup()

    async def drain(self) -> bool:
        """Accept nothing more, and wait until all that was accepted is answered; false where time ran out."""
        self.draining = True
        self.metrics.ready.set(0)
        tell("draining", requests=self.open)
        end = asyncio.get_running_loop().time() + self.settings.drain
        while self.open and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        return not self.open

    def allowed(self, key: bytes) -> bool:
        """Whether this is one of the keys; takes the same time whichever it is."""
        digest = hashlib.sha256(key).digest()
        return sum(hmac.compare_digest(digest, known) for known in self.keys) > 0

    def patience(self, headers: Mapping[str, str]) -> float:
        """Seconds that a request may take. Raises `Refusal`."""
        given = headers.get("x-timeout", "")
        try:
            seconds = float(given) if given else self.settings.timeout
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise Refusal(WRONG, "is not a number of seconds", where="X-Timeout", got=ascii(given[:20]), cause="input")
        return min(seconds, self.settings.timeout)

    async def _look(self) -> None:
        """Load what has changed on disk, once it has come to rest."""
        before: dict[str, object] = {}
        while True:
            await asyncio.sleep(self.settings.watch)
            now = {name: models.signature(model.paths) for name, model in self.models.items()}
            rest = [name for name, looks in now.items() if looks != self.seen[name] and before.get(name) == looks]
            before = now
            await self.reload(rest)

    async def reload(self, names: Sequence[str] | None = None) -> None:
        """Load these models again (all of them where None), one after the other; those that cannot answer are refused,
        and the ones before go on."""
        async with self.loading:
            for name in list(self.models) if names is None else names:
                outcome, why = "same", ""
                try:
                    outcome = await self._again(self.models[name])
                except (AntiphonError, OSError) as error:
                    outcome, why = "refused", str(error)
                self.metrics.reloads.labels(name, outcome).inc()
                tell("reload", level="error" if why else "info", model=name, outcome=outcome, why=why or None)

    async def _again(self, old: Served) -> str:
        self.seen[old.name] = models.signature(old.paths)
        new = await asyncio.to_thread(models.read, old.name, old.paths, Path(self.folder.name))
        if new.copies == old.copies:
            return "same"
        try:
            await self.fleet.load({**self.models, old.name: new})
        except BaseException:
            self._remove(set(new.copies) - set(old.copies))
            raise
        self.models[old.name], self.seen[old.name] = new, new.signature
        self.metrics.info.remove(old.name, old.sha256)
        self.metrics.info.labels(new.name, new.sha256).set(1)
        self._remove(set(old.copies) - set(new.copies))
        return "loaded"

    def _remove(self, copies: set[str]) -> None:
        for copy in copies:
            Path(copy).unlink(missing_ok=True)

    # Requests

    async def job(
        self, model: Served, inputs: Sequence[str | Given], asked: Search, seconds: float, *, stream: bool = False
    ) -> Job:  # fmt: skip
        """Inputs as a job. Raises `Refusal`."""
        if len(inputs) > self.settings.inputs:
            what = f"a request has at most {self.settings.inputs:,} inputs"
            raise Refusal(WRONG, what, where="inputs", got=len(inputs), do="send several requests", cause="too-many")
        model = model.by(asked.adapter)
        decoding = searching(model, asked, self.settings)
        pairs = [self._pair(model, each, f"inputs[{n}]") for n, each in enumerate(inputs)]
        counts = await self._counted(model, pairs)
        more = sum(map(len, (asked.prefix or "", *asked.required)))
        rows = [{"source": pair.source, "context": pair.context, "prefix": asked.prefix or "",
                 "required": asked.required} for pair in pairs]  # fmt: skip
        return self._job(model, asked, decoding, rows, sum(counts) + more * len(rows), seconds, stream=stream)

    async def file(
        self, model: Served, path: Path, context: Mapping[str, str], asked: Search, seconds: float
    ) -> Job:  # fmt: skip
        """The file of a recording, a film or an array as a job. Raises `Refusal`."""
        model = model.by(asked.adapter)
        decoding = searching(model, asked, self.settings)
        count = await asyncio.to_thread(model.heard, path, context, self.settings)
        return self._job(model, asked, decoding, [{"source": str(path), "context": context}], count, seconds)

    async def exploration(self, model: Served, asked: Explore, seconds: float) -> Job:
        """A look at what may come next, as a job. Raises `Refusal`."""
        search = Search(model=asked.model, adapter=asked.adapter)
        if model.config.data.target.kind == "numbers":
            raise Refusal(WRONG, "the model answers with numbers, which have no pieces", where="model", cause="input")
        job = await self.job(model, [asked.source], search, seconds)
        row = {"prefix": asked.prefix, "pieces": asked.pieces, "width": asked.width}
        cost = (job.cost // max(1, model.beam) + len(asked.prefix) + len(asked.pieces)) * asked.width
        self._bearable(cost, "source")
        return replace(job, task={**job.task, "do": "explore"}, row=row, cost=cost, alone=True)

    def _job(
        self, model: Served, asked: Search, decoding: Decoding, rows: list[dict[str, Any]], tokens: int, seconds: float,
        *, stream: bool = False,
    ) -> Job:  # fmt: skip
        if asked.adapter is not None and asked.adapter not in model.adapters:
            raise Refusal(WRONG, "the model has no such adapter", where="adapter", cause="input")
        self._bearable(cost := tokens * _hypotheses(model, decoding), "inputs")
        ruled, loop = bool(asked.prefix or asked.required or asked.banned), asyncio.get_running_loop()
        task = {"do": "answer", "model": model.name, "adapter": asked.adapter, "decoding": asdict(decoding),
                "banned": asked.banned}  # fmt: skip
        return Job(
            id=uuid.uuid4().hex[:16], model=model.name, task=task, inputs=rows, row={"details": asked.details},
            key=(model.name, asked.adapter, decoding, tuple(asked.banned), ruled), cost=cost,
            # what is drawn depends on the place of an input among those of its own request
            alone=decoding.sample, deadline=loop.time() + seconds, future=loop.create_future(),
            partials=asyncio.Queue() if stream else None,
        )  # fmt: skip

    def _bearable(self, cost: int, where: str) -> None:
        if cost > self.settings.work:
            what = f"a request has at most {self.settings.work:,} tokens times hypotheses"
            raise Refusal(WRONG, what, where=where, got=f"{cost:,}", do="send less", cause="too-long")

    def _pair(self, model: Served, given: str | Given, where: str) -> Pair:
        if isinstance(given, str):
            return model.pair(given, {}, [], self.settings, where)
        facts = [(fact[0], fact[1], fact[2]) for fact in given.facts]
        return model.pair(given.source, given.context, facts, self.settings, where)

    async def _counted(self, model: Served, pairs: Sequence[Pair]) -> list[int]:
        def count() -> list[int]:
            return [model.count(pair, self.settings, f"inputs[{n}]") for n, pair in enumerate(pairs)]

        large = sum(len(pair.source) for pair in pairs) > LARGE
        return await asyncio.to_thread(count) if large else count()


def _hypotheses(model: Served, decoding: Decoding) -> int:
    if model.config.data.target.kind == "numbers":
        return max(1, decoding.samples // 8) if decoding.sample else 1
    return decoding.n_best if decoding.sample else decoding.beam or model.beam


def searching(model: Served, asked: Search, settings: Settings) -> Decoding:
    """The model's own settings of a search with those of a request in their place. Raises `Refusal`."""
    for name, value in (("beam", asked.beam), ("best", asked.best)):
        if value is not None and value > settings.hypotheses:
            what = f"{name} is at most {settings.hypotheses:,}"
            raise Refusal(WRONG, what, where=name, got=value, do="ask for less", cause="too-many")
    own = model.config.decoding
    drawn = replace(own, sample=asked.sample or own.sample, seed=own.seed if asked.seed is None else asked.seed,
                    temperature=asked.temperature or own.temperature)  # fmt: skip
    if model.config.data.target.kind == "numbers":
        if asked.prefix or asked.required or asked.banned or (asked.beam or 1) > 1 or (asked.best or 1) > 1:
            what = (
                "beam, best, prefix, required and banned are for answers of text, and those of this model are numbers"
            )
            raise Refusal(WRONG, what, where="model", do="leave them out", cause="input")
        return drawn
    best = asked.best or own.n_best
    beam = asked.beam or max(model.beam, best)
    if best > beam and not asked.sample:
        do = "widen the beam, or ask for fewer answers"
        raise Refusal(WRONG, "best is larger than beam", where="best", got=f"{best} and {beam}", do=do, cause="input")
    return replace(drawn, beam=beam, n_best=best)


def _keys(file: str | None) -> list[bytes]:
    """The hashes of the keys in a file."""
    if file is None:
        return []
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file of keys cannot be read", where=file, got=type(error).__name__) from None
    if not (keys := [line for line in lines if line and not line.startswith("#")]):
        raise ConfigError("there is no key in the file", where=file, do="write one a line")
    return [hashlib.sha256(key.encode()).digest() for key in keys]
