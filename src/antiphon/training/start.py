"""From data to a run: open, split, propose settings, learn tokenizers, encode, train; and the way back into a run."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError, DataError, TrainingError
from antiphon.core.keys import override, read
from antiphon.core.stopping import Stopped, interruptible
from antiphon.data import augment, noise, turns
from antiphon.data.balance import table
from antiphon.data.batching import mixed_in, padding, plan
from antiphon.data.corpus import Chain, Corpus, Pair, group_references, overlap
from antiphon.data.facts import Finder
from antiphon.data.modalities import Text, TooLong
from antiphon.data.numbers import Numbers
from antiphon.data.report import Report
from antiphon.data.signals import Signal
from antiphon.data.sizes import sizes
from antiphon.data.store import Store, join, prepare
from antiphon.inference import tasks
from antiphon.inference.bundle import ADAPTERS, CONFIG_FILE
from antiphon.inference.tags import tagged
from antiphon.inference.task import Task
from antiphon.training import recipes
from antiphon.training import runner as running
from antiphon.training.adapting import Base
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.distillation import Teachers, taught, teaching
from antiphon.training.finetuning import Start
from antiphon.training.given import enough_positions, nothing_to_mix, settings
from antiphon.training.identity import alone, claim, clear, ended, same_data, same_settings
from antiphon.training.observers import Audience, Note, Opened, Result
from antiphon.training.sources import Sources
from antiphon.training.statistics import Statistics
from antiphon.training.trainer import SAVE_SECONDS, train
from antiphon.training.workers import launch


def fit(
    data: Any, *, out: str | os.PathLike[str], valid: Any = None, parallel: Any = None,
    assignments: Mapping[str, Any] | None = None, task: str | None = None, observers: Sequence[Any] = (),
    command: str = "", save_seconds: float = SAVE_SECONDS, start: str | os.PathLike[str] | None = None,
    mix: Any = None, teachers: Sequence[str | os.PathLike[str]] = (),
) -> Result:  # fmt: skip
    """Train a model on pairs in the new run folder `out`, with proposed settings where none are given.

    `data` and `valid` are whatever `open_pairs` takes (`parallel` is the target file of `data`); without `valid` a
    share of the sources is held out. `assignments` are settings by dotted name; `command` goes on the model card. Pairs
    that come from memory are kept in the run as JSONL, so that it can be resumed. Observers are told each choice, each
    line of the data report, and then what the trainer tells. A checkpoint is written at each validation, and at least
    every `save_seconds`. `start` is a trained model to go on from (a bundle or a run): its network, tokenizers,
    vocabularies and search stay, and settings that contradict it are a `ConfigError`. `mix` is other data, read as
    `data` is, of which every epoch takes a new sample (Chu et al. 2017), as much as `data.mix` says. `teachers` are
    trained models: the student takes over their tokenizers and vocabularies, and learns from their distributions unless
    `training.objective` says otherwise. Raises `AntiphonError`; a
    signal is no error but `Result.interrupted`.
    """
    if data is None:
        raise DataError("there are no pairs", where="fit", do="give pairs, or the path of a file")
    origin = Start.open(start) if start is not None else None
    given = taught({**({"task": task} if task else {}), **(assignments or {})}, teachers)
    config = settings(given, origin)
    if mix is None:
        nothing_to_mix(config)
    run = Path(out)
    audience, runner = Audience(observers), None
    claim(run)
    with alone(run):
        try:
            with interruptible():
                sources = Sources.keep(run, data, valid, parallel, config.data, mix)
                for line in sources.lost:
                    audience.note("data", line)
                read_first = sources.hashes(config)
                config = sources.kind(config)
                train_part, valid_part = sources.open(config)
                find = finder(config, audience)
                config = _propose(config, sources.looked_at(config, train_part, find), audience, origin)
                running.check(config.training)
                audience.tell("opened", Opened(train_part, config))
                runner = launch(config)
                learned, config = _task(config, origin, train_part, sources.old(config), find, audience)
                learned, store, held_out = _encode(run, config, learned, train_part, valid_part, audience)
                store = _mixed(sources, config, learned, store, held_out, audience)
                learned = _measured(learned, store, started=origin is not None)
                facts = {**sources.unmoved(read_first, config), "data": sources.names(),
                         **(origin.facts() if origin else {}), **teaching(config.training.teachers),
                         "command": command or _command(assignments, origin)}  # fmt: skip
        except BaseException as error:
            if runner is not None:
                runner.close()
            clear(run)
            if isinstance(error, Stopped):
                return _stopped(run, error.number, config, audience)
            raise
        return train(config, learned, store, held_out, run, observers=observers, facts=facts,
                     notes=audience.notes, stop=audience.stop, save_seconds=save_seconds, runner=runner,
                     start=origin.weights if origin else None, base=Base.wanted(origin, config))  # fmt: skip


def resume(run: str | os.PathLike[str], observers: Sequence[Any] = (), *, save_seconds: float = SAVE_SECONDS) -> Result:
    """Go on with a run from its newest checkpoint that is whole; a finished run is left untouched.

    The data is read anew and must be as it was; so must a model that the run started from, if there is no checkpoint
    yet. Raises `AntiphonError`.
    """
    run = Path(run)
    config, facts = read_run(run)
    checkpoints = Checkpoints(run)
    if checkpoints.all() and (state := checkpoints.newest().state).done:
        return ended(run, state, config)
    with alone(run):
        checkpoints.sweep()
        found = checkpoints.newest() if checkpoints.all() else None
        if found is not None:
            same_settings(_learned_by(found.files, config), config, run)
            if found.state.done:  # another process was faster
                return ended(run, found.state, config)
        audience = Audience([])
        try:
            with interruptible():
                sources = Sources.recall(run, facts)
                same_data(facts, sources.facts(config), run)
                train_part, valid_part = sources.open(config)
                origin = Start.recall(facts, run) if found is None and "start" in facts else None
                find = finder(config, audience)
                learned = (
                    Task.load(found.files, config)
                    if found
                    else _task(config, origin, train_part, sources.old(config), find, audience)[0]
                )
                learned = replace(learned, find=find)
                learned, store, held_out = _encode(run, config, learned, train_part, valid_part, audience)
                store = _mixed(sources, config, learned, store, held_out, audience)
                learned = _measured(learned, store, started="start" in facts)
        except Stopped as error:
            return _stopped(run, error.number, config, audience)
        return train(config, learned, store, held_out, run, observers=observers, facts=facts, resume=True,
                     save_seconds=save_seconds, start=origin.weights if origin else None,
                     base=Base.wanted(origin, config))  # fmt: skip


def read_run(run: Path) -> tuple[Config, dict[str, Any]]:
    """The settings of a run, and what it knows of its data. `TrainingError` or `BundleError` where there are none."""
    try:
        values = [json.loads((run / name).read_bytes()) for name in ("config.json", "data.json")]
    except (FileNotFoundError, NotADirectoryError):
        do = "give the folder that train had as --out"
        raise TrainingError("there is no run here", where=run, do=do) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the run is damaged: {error}", where=run) from None
    if not isinstance(values[1], dict):
        raise BundleError("the run is damaged: data.json is no table", where=run)
    return read(values[0], where=str(run / "config.json")), values[1]


def _learned_by(files: Mapping[str, bytes], config: Config) -> Any:
    """The settings that a checkpoint was learned by; beside an adapter its model has others."""
    name = config.model.adapter.name
    return json.loads(files[f"{ADAPTERS}{name}.json"])["config"] if name else json.loads(files[CONFIG_FILE])


def _command(assignments: Mapping[str, Any] | None, origin: Start | None) -> str:
    """What the model card gives as the command, where none was given."""
    words = ["antiphon train DATA", *([f"--from {origin.name}"] if origin else [])]
    return " ".join([*words, *(f"{key}={value}" for key, value in (assignments or {}).items())])


def _propose(config: Config, found: Statistics, audience: Audience, origin: Start | None) -> Config:
    config, choices = recipes.propose(config, found, trained=origin is not None)
    enough_positions(config)
    audience.tell("proposed", choices)
    for choice in choices:
        audience.note("choice", f"{choice.key} = {choice.value}: {choice.reason}")
    for line in origin.told(config) if origin is not None else ():
        audience.note("start", line)
    return config


def finder(config: Config, audience: Audience) -> Finder:
    """What gives pairs their facts, and all that was odd about its knowledge base told."""
    find = Finder.open(config.data, report := Report())
    for line in report.lines():
        audience.note("data", f"facts: {line}")
    return find


def _task(
    config: Config, origin: Start | None, pairs: Corpus, mixed: Corpus | None, find: Finder, audience: Audience
) -> tuple[Task, Config]:
    """What turns pairs into ids, learned or a trained model's, and the configuration with the sizes that came of it."""
    if origin is None and config.training.teachers:
        return replace(Teachers.open(config.training.teachers).task(config), find=find), config
    if origin is None:
        more: list[Iterable[Pair]] = [mixed] if mixed else []
        if config.data.augment.robust and "casing" in tasks.get(config.task).noise:
            more.append(noise.Recased(turns.Spoken(pairs)))
        learned = Task.learn(Chain((pairs, *more)) if more else pairs, config, find)
        told = learned.covariates.size if learned.covariates else 0
        if config.model.covariates not in (0, told):
            what, do = "model.covariates is what data.context comes to", "leave it out"
            raise ConfigError(what, got=f"{config.model.covariates}, and data.context has {told}", do=do)
        return learned, override(config, {"model.covariates": told}) if told else config
    task, config, lines = origin.task(config, pairs, find)
    for line in lines:
        audience.note("start", line)
    return task, config


def _mixed(
    sources: Sources, config: Config, task: Task, store: Store, held_out: list[Pair], audience: Audience
) -> Store:
    """The store with the other pairs at its end, and all that was odd about them told."""
    if (pairs := sources.old(config)) is None:
        return store
    report, size = Report(), max(task.source.size, task.target.size)
    marked = (tagged(pair, config.data.mix_tag) for pair in pairs) if config.data.mix_tag else pairs
    try:
        old = prepare(marked, partial(task.encode, report=report), sources.run / "data/old", report=report,
                      keep_text=store.texts is not None, ids_below=None if task.copy else size)  # fmt: skip
    except DataError as error:
        where = f"mixed-in data, {pairs.name}{', ' if error.where else ''}{error.where}"
        raise DataError(error.what, where=where, got=error.got, do=error.do) from None
    many = f"{mixed_in(len(store), len(old), config.data.mix):,} of {len(old):,} pairs in each epoch"
    for line in (many, *pairs.report.lines(), *report.lines(), *overlap(pairs, held_out).lines()):
        audience.note("data", f"mixed-in data: {line}")
    return join(store, old)


def _measured(task: Task, store: Store, *, started: bool) -> Task:
    """The task with limits that cover the pairs of a store, and what a model that was started from was used to."""
    measured = task.with_lengths(store.source_lengths, store.target_lengths)
    return replace(measured, length=measured.length.join(task.length)) if started else measured


def _encode(
    run: Path, config: Config, task: Task, train_part: Corpus, valid_part: Corpus, audience: Audience
) -> tuple[Task, Store, list[Pair]]:
    """The task as it changes training pairs, both parts checked and encoded, and all that was odd about them told."""
    task = _augmented(config, task, train_part)
    report, held_out_report, data = Report(), Report(), config.data
    anew = bool(data.source.sampling or data.target.sampling or data.augment.speed or task.augment)
    size = None if task.copy else max(task.source.size, task.target.size)
    more = _more(config, task, train_part, audience)
    store = prepare(Chain((train_part, more)), partial(task.encode, report=report), run / "data", report=report,
                    ids_below=size, keep_text=anew, balance=data.balance)  # fmt: skip
    held_out = list(group_references(_fitting(valid_part, task, held_out_report)))
    if not held_out:
        raise DataError("no pair is left to validate with", where=valid_part.name)
    for name, lines in (("training", [*train_part.report.lines(), *report.lines()]),
                        ("validation", [*valid_part.report.lines(), *held_out_report.lines()]),
                        ("validation", overlap(train_part, held_out).lines())):  # fmt: skip
        for line in lines:
            audience.note("data", f"{name} data: {line}")
    audience.note("data", f"training data: {_sizes(task, store)}")
    audience.note("data", f"training data: {_padded(config, store):.1%} of a batch is padding")
    for line in (*table(data, store.names, store.groups), *_effects(config, task, store)):
        audience.note("data", f"training data: {line}")
    for part in (train_part, valid_part):
        part.forget()
    return task, store, held_out


def _augmented(config: Config, task: Task, pairs: Corpus) -> Task:
    """The task with the changes of training pairs that the settings ask for."""
    if isinstance(task.source, Signal) or isinstance(task.target, Numbers):
        return task
    texts = turns.Spoken(pairs) if task.turns else pairs
    kinds = tasks.get(config.task).noise
    changed = augment.learn(texts, config.data, task.source.tokenizer, task.target.tokenizer, kinds)
    return replace(task, augment=turns.on_newest(changed) if changed and task.turns else changed)


def _more(config: Config, task: Task, pairs: Corpus, audience: Audience) -> list[Pair]:
    """Pairs of two, and of a word, that are added where sources of other lengths are to be learned."""
    kinds = tasks.get(config.task).noise
    if not config.data.augment.robust or task.augment is None or not {"joined", "single"} <= set(kinds):
        return []
    limits = [side.max_length or math.inf for side in (config.data.source, config.data.target)]

    def short(pair: Pair) -> bool:
        try:
            example = task.encode(pair)
        except TooLong:
            return False
        return len(example.source) < limits[0] and len(example.target) < limits[1]

    two = noise.two_as_one(pairs, random.Random(f"longer {config.training.seed}"), noise.LONGER)
    two = [pair for pair in two if short(pair)]
    plain = not config.data.context and not config.data.balance and task.knowledge == "none"
    one = noise.dictionary(pairs) if plain else []
    one = one[: round(len(two) * noise.WORDS / noise.LONGER)]
    shown = "".join(f", '{pair.source}' -> '{pair.target}'" for pair in one[:3])
    told = f"{len(two):,} pairs of two in a row and {len(one):,} of single words are added{shown}"
    audience.note("data", f"training data: {told}")
    return [*two, *one]


def _effects(config: Config, task: Task, store: Store) -> Iterator[str]:
    """How many pairs each kind of augmentation changes, and examples, from a sample; nothing where there is none."""
    if store.texts is None:
        return
    rows = random.Random(config.training.seed).sample(range(len(store)), min(augment.SAMPLE, len(store)))
    pairs = [store.pair(row) for row in sorted(rows)]
    if task.augment:
        yield from augment.effects(task.augment, pairs, len(store))
    for name, side in (("source", task.source), ("target", task.target)):
        if isinstance(side, Text) and side.side.sampling:
            cuts = [[Pair(" ".join(side.cut(getattr(pair, name), seed=seed)), "") for seed in (None, number)]
                    for number, pair in enumerate(pairs)]  # fmt: skip
            yield augment.effect(f"subword sampling of the {name}", [(old, new) for old, new in cuts], len(store))


def _sizes(task: Task, store: Store) -> str:
    """How long sources and targets are, and a target for its source."""
    frames = isinstance(task.source, Signal)
    seconds = task.source.seconds if isinstance(task.source, Signal) else None
    return sizes(store.source.lengths, store.target_lengths, frames=frames, seconds=seconds)


def _padded(config: Config, store: Store) -> float:
    """The share of padding in the batches of the first epoch."""
    lengths = store.source_lengths, store.target_lengths
    return padding(*lengths, plan(*lengths, config.data.batch_tokens or 4096, config.training.seed, 0))


def _fitting(pairs: Iterable[Pair], task: Task, report: Report) -> Iterator[Pair]:
    """The pairs that the task can encode; others are counted or refused, as in training."""
    for pair in pairs:
        try:
            task.encode(pair, report=report)
        except TooLong as error:
            if not error.skip:
                raise
            report.add(f"skipped: {error.what}", example=pair.source)
            continue
        yield fitted(pair, task)


def fitted(pair: Pair, task: Task) -> Pair:
    """A pair that the task can encode, with those of its references that it can encode too."""
    return replace(pair, references=tuple(text for text in pair.references if fits(replace(pair, target=text), task)))


def fits(pair: Pair, task: Task) -> bool:
    """Whether the task can encode the pair: what is too long may be skipped."""
    try:
        task.encode(pair)
    except TooLong:
        return False
    return True


def _stopped(run: Path, number: int, config: Config, audience: Audience) -> Result:
    metric = config.training.metric or "loss"
    notes = (*audience.notes, Note("stop", "stopped before training began"))
    result = Result(run, "signal", 0, 0, metric, None, 0, {}, None, 0.0, 0, number, notes)
    audience.tell("finished", result)
    return result
