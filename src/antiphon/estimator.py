"""`Seq2Seq`: a model of pairs in the manner of scikit-learn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.core.errors import AntiphonError, ConfigError, DataError, nearest
from antiphon.core.keys import flat

if TYPE_CHECKING:
    from antiphon.data.columns import Pair
    from antiphon.inference.bundle import Bundle
    from antiphon.inference.predictor import Predictor
    from antiphon.training.observers import Result


class Seq2Seq:
    """Learns to answer one sequence with another.

    `task` picks the recipe, `minutes` limits the time of training, `seed` decides every random choice, `out` keeps the
    run (checkpoints, log, best model) in a folder, `settings` sets anything else by its dotted name, `adapter` names
    the adapter to train (`fit` with a `start`, which stays as it is) and to answer by, and `verbose` shows the proposed
    settings and the training. After `fit`: `result_` (how the run ended) and `bundle_`.

    >>> model = Seq2Seq(minutes=1, settings={"model.encoder.kind": "gru"})
    >>> model.get_params()["minutes"]
    1
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        minutes: float | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        settings: dict[str, Any] | None = None,
        adapter: str | None = None,
        verbose: bool = True,
    ) -> None:
        self.task, self.minutes, self.seed = task, minutes, seed
        self.out, self.settings, self.adapter, self.verbose = out, settings, adapter, verbose
        self.result_: Result | None = None
        self.bundle_: Bundle | None = None
        self._predictor: Predictor | None = None
        self._knowledge: str | Path | None = None

    def fit(
        self,
        pairs: Any,
        valid: Any = None,
        *,
        start: str | Path | Seq2Seq | None = None,
        mix: Any = None,
        teacher: str | Path | Seq2Seq | Sequence[str | Path | Seq2Seq] | None = (),
    ) -> Seq2Seq:
        """Train on pairs: tuples, dicts, a DataFrame or a file; `valid` likewise, else a share is held out.

        `start` is a trained model to go on from: a bundle, a run, or a `Seq2Seq`. Its network and vocabularies stay.
        `mix` are other pairs, of which each epoch takes a sample. `teacher`, one such model or several, is what is
        learned from beside the pairs; its vocabularies are taken over.
        """
        from antiphon.inference.bundle import load

        teachers: list[Any] = list(teacher) if _several(teacher) else [teacher] if teacher else []  # type: ignore[arg-type]
        for model in (start, *teachers):
            if model is not None and not isinstance(model, Seq2Seq):
                _path(model, "fit")
        self._looks_right(pairs, valid)
        if self.out is not None and any(isinstance(model, Seq2Seq) for model in teachers):
            do = "save it, and give its path"
            raise ConfigError("a run that can be resumed needs its teacher on disk", where="fit", do=do)
        if any(isinstance(model, Seq2Seq) for model in (start, *teachers)):
            with tempfile.TemporaryDirectory(prefix="antiphon-") as folder:
                paths = [_on_disk(model, Path(folder) / str(number), whole=not number and self._adapter is not None)
                         for number, model in enumerate((start, *teachers))]  # fmt: skip
                return self.fit(pairs, valid, start=paths[0], mix=mix, teacher=[path for path in paths[1:] if path])
        out = _path(self.out, "out") if self.out is not None else Path(tempfile.mkdtemp(prefix="antiphon-")) / "run"
        self.result_ = None
        try:
            self.result_ = self._train(pairs, valid, out, start, mix, teachers)
            if self.result_.bundle is None:
                raise AntiphonError("training ended before there was a model", do="allow more time or steps")
            bundle = load(self.result_.bundle)
            facts = flat(self.settings or {}).get("data.knowledge") if bundle.task.knowledge != "none" else None
            self._use(bundle, facts or None)
        finally:
            if self.out is None and not (self.result_ and self.result_.interrupted):
                shutil.rmtree(out.parent, ignore_errors=True)
        return self

    def _looks_right(self, pairs: Any, valid: Any) -> None:
        """Refuse what was meant otherwise: sources and targets apart, settings that are no dict."""
        settings: Any = self.settings
        if settings is not None and not isinstance(settings, Mapping):
            raise ConfigError(
                "settings are a dict", where="Seq2Seq", got=repr(settings)[:60], do="write {'model.width': 64}"
            )
        if odd := [name for name in settings or () if not isinstance(name, str)]:
            do = "write names as text, such as 'model.width'"
            raise ConfigError("settings go by their names", where="Seq2Seq", got=repr(odd[0])[:60], do=do)
        lists = all(hasattr(each, "__len__") and not isinstance(each, str) and not hasattr(each, "columns")
                    and len(each) > 2 for each in (pairs, valid))  # fmt: skip
        if lists and len(pairs) == len(valid) and isinstance(next(iter(pairs)), str):
            do = "write fit(list(zip(sources, targets)))"
            raise DataError("fit takes pairs", where="fit", got="a list of sources, and one of targets", do=do)

    def _train(
        self, pairs: Any, valid: Any, out: Path, start: Any, mix: Any, teachers: Sequence[Any]
    ) -> Result:  # fmt: skip
        from contextlib import nullcontext

        from antiphon.cli.console import Console
        from antiphon.cli.display import watching
        from antiphon.core.config import Config
        from antiphon.core.keys import override
        from antiphon.training.observers import Observer
        from antiphon.training.start import fit

        named = {"task": self.task, "training.minutes": self.minutes, "training.seed": self.seed,
                 "model.adapter.name": self.adapter}  # fmt: skip
        given = {key: value for key, value in named.items() if value is not None} | flat(self.settings or {})
        override(Config(), given, where="settings")
        with watching(Console(), given, command=False) if self.verbose else nullcontext(Observer()) as observer:
            return fit(
                pairs, valid=valid, out=out, assignments=given, observers=[observer], command=repr(self), start=start,
                mix=mix, teachers=teachers,
            )  # fmt: skip

    def _use(self, bundle: Bundle, knowledge: str | Path | None = None) -> None:
        from antiphon.inference.predictor import Predictor

        predictor = Predictor(bundle, knowledge=knowledge, adapter=self._adapter)
        self.bundle_, self._predictor, self._knowledge = bundle, predictor, knowledge

    @property
    def _adapter(self) -> str | None:
        """The adapter that answers, whichever way it was named."""
        return self.adapter or flat(self.settings or {}).get("model.adapter.name") or None

    def calibrate(self, pairs: Any, metric: str | None = None) -> Seq2Seq:
        """Learn from pairs that training has not seen how likely each answer is to be right: `confidence` of the
        answers of `predictor`. By the metric that is named, or that of training.

        `ConfigError` where an adapter answers: a bundle has the confidence of the model alone.
        """
        from antiphon.data.corpus import group_references, open_pairs
        from antiphon.inference.calibration import calibrate

        config, kept = self.predictor.config, self.bundle_
        assert kept is not None
        if self._adapter:
            do = "load the model without its adapter"
            raise ConfigError("confidence is fitted to the model alone", got=f"adapter={self._adapter!r}", do=do)
        grouped = group_references(open_pairs(pairs, config.data))
        found = calibrate(kept, grouped, metric, knowledge=self._knowledge)
        self._use(replace(kept, confidence=found.calibration), self._knowledge)
        return self

    def predict(self, sources: Iterable[Any]) -> list[str]:
        """The best answer to each source (a text, a `Pair`, an array) or row of a DataFrame, in order."""
        if isinstance(sources, Mapping) or not _several(sources):
            got = repr(sources)[:60]
            raise ConfigError("predict takes a list of sources", got=got, do="write predict([text])")
        from antiphon.data.corpus import open_pairs
        from antiphon.data.formats import is_frame

        data = replace(self.predictor.config.data, empty="error", damaged="error")  # an answer for each row
        asked = open_pairs(sources, data, need_target=False) if is_frame(sources) else sources
        return [answers[0].text for answers in self.predictor.predict(map(_source, asked), details=False)]

    def score(self, pairs: Any, metric: Any = None) -> float:
        """How good the answers are, by the metric that training judged by or the one that is named.

        Where training judged by the loss it is exact match, of numbers the mean absolute error. Higher is better, as
        scikit-learn has it: metrics that count errors come out negative.
        """
        from antiphon import metrics
        from antiphon.data.corpus import group_references, open_pairs
        from antiphon.inference.evaluate import check_metric, of_numbers, said

        if metric is not None and not isinstance(metric, str):
            do = "write score(list(zip(sources, targets)))"
            raise ConfigError("score takes pairs, and the name of a metric", got=type(metric).__name__, do=do)
        config = self.predictor.config
        judged = config.training.metric or "loss"
        usual = "mae" if of_numbers(config) else "exact"
        by = metrics.get(metric or (judged if judged.split(":")[0] in metrics.NAMES else usual))
        grouped = group_references(open_pairs(pairs, config.data))
        references = [pair.references for pair in grouped]
        answers = [said(found[0]) for found in self.predictor.predict(grouped)]
        check_metric(by, config)
        value = metrics.corpus(by, answers, references, bootstrap=0).value
        return value if by.higher_is_better else -value

    @property
    def predictor(self) -> Predictor:
        """What answers, with all its options: n-best, scores, alignments, constraints."""
        if self._predictor is None:
            raise AntiphonError("the model has not been trained", do="call fit, or Seq2Seq.load")
        return self._predictor

    def save(self, path: str | Path) -> None:
        """Write the model as a bundle: a folder, or one file where the name ends in .zip."""
        from antiphon.inference import bundle

        if self.bundle_ is None:
            raise AntiphonError("the model has not been trained", do="call fit, or Seq2Seq.load")
        if self.bundle_.engines:
            raise ConfigError("an exported model is complete as it is", got=self.bundle_.path, do="copy its files")
        path = _path(path, "save")
        kept, card = self.bundle_, self.bundle_.manifest.get("card") or {}
        bundle.save(path, model=kept.model, task=kept.task, config=kept.config, card=card,
                    adapters=kept.adapters, confidence=kept.confidence)  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, *, knowledge: str | Path | None = None, adapter: str | None = None) -> Seq2Seq:
        """A trained model from a bundle or a run; with a file of facts, if it looks these up; to answer by one of its
        adapters, where one is named."""
        from antiphon.inference.bundle import load

        model = cls(adapter=adapter)
        model._use(load(_path(path, "load")), knowledge)
        return model

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **params: Any) -> Seq2Seq:
        """Change some of the arguments."""
        for name, value in params.items():
            if name not in PARAMETERS:
                raise ConfigError(f"unknown parameter {name}", where="set_params", do=nearest(name, PARAMETERS))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = {name: value for name, value in self.get_params().items() if value != DEFAULTS[name]}
        return f"Seq2Seq({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _several(given: Any) -> bool:
    """Whether there is something to go through, and not one text."""
    if isinstance(given, str):
        return False
    try:
        iter(given)
    except TypeError:
        return False
    return True


def _path(given: Any, where: str) -> Path:
    if not isinstance(given, str | Path):
        raise ConfigError("is no path", where=where, got=repr(given)[:60], do="give the name of a file or folder")
    return Path(given)


def _source(given: Any) -> str | Pair:
    """A source as the predictor takes it."""
    from antiphon.data import columns
    from antiphon.data.arrays import is_numbers, written

    if is_numbers(given):
        return written(given)
    if not isinstance(given, str | columns.Pair):
        do = "give texts, arrays, `Pair`s, or a DataFrame"
        raise ConfigError("is no source", where="predict", got=repr(given)[:60], do=do)
    return given


def _on_disk(model: str | Path | Seq2Seq | None, path: Path, *, whole: bool) -> str | Path | None:
    """Where a model is, saved there if it was in memory alone: `whole` with its adapters, else as it answers."""
    from antiphon.inference import bundle

    if not isinstance(model, Seq2Seq):
        return model
    if model._adapter is None or whole:
        model.save(path)
    else:
        kept = model.predictor.bundles[0]
        card = kept.manifest.get("card") or {}
        bundle.save(path, model=kept.model, task=kept.task, config=kept.config, card=card)
    return path


DEFAULTS: dict[str, Any] = {
    "task": None,
    "minutes": None,
    "seed": None,
    "out": None,
    "settings": None,
    "adapter": None,
    "verbose": True,
}
PARAMETERS = tuple(DEFAULTS)
