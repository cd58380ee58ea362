"""Looking on while a model answers: it changes nothing, sees answers grow, gives some up, and is told early; and what a
model might say next."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from antiphon import Predictor, load
from antiphon.core.batch import pad
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.arrays import written
from antiphon.inference.chat import conversation
from antiphon.inference.explore import explore
from antiphon.inference.predictor import Answer
from antiphon.inference.search import rescore
from served import SOURCES, listener, model, tones


class Eyes:
    """Sees everything, and gives up what is asked for after some steps."""

    def __init__(self, given_up: int | None = None, after: int = 2) -> None:
        self.given_up, self.after = given_up, after
        self.seen: dict[int, list[str]] = {}
        self.steps: dict[int, int] = {}
        self.told: dict[int, list[Answer]] = {}

    def look(self, going: Collection[int], text: Callable[[int], str | None]) -> list[int]:
        for number in going:
            self.steps[number] = self.steps.get(number, 0) + 1
            if (said := text(number)) is not None:
                self.seen.setdefault(number, []).append(said)
        return [number for number in (self.given_up,) if number is not None and self.steps.get(number, 0) >= self.after]

    def tell(self, number: int, answers: list[Answer]) -> None:
        assert number not in self.told
        self.told[number] = answers


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("watched") / "small", least=1)


@pytest.fixture(scope="module")
def predictor(path: Path) -> Predictor:
    return Predictor(load(path), processes=1)


KINDS = {
    "beam": Decoding(beam=4, n_best=3), "greedy": Decoding(beam=1), "thorough": Decoding(beam=3, thorough=True),
    "diverse": Decoding(beam=4, groups=2, n_best=2), "sampling": Decoding(sample=True, n_best=3, temperature=1.5),
    "coverage": Decoding(beam=3, coverage_penalty=0.3),
}  # fmt: skip


def outcomes(found: list[Answer]) -> list[tuple[str, float, bool]]:
    return [(answer.text, round(answer.score, 4), answer.finished) for answer in found]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_nothing_changes_for_those_that_go_on(predictor: Predictor, settings: Decoding) -> None:
    settings = replace(settings, max_length=9)
    plain = list(map(outcomes, predictor.predict(SOURCES, settings=settings)))
    eyes = Eyes()
    assert list(map(outcomes, predictor.predict(SOURCES, settings=settings, watcher=eyes))) == plain
    assert len(eyes.told) > len(SOURCES) // 2
    for number, answers in eyes.told.items():
        assert outcomes(answers) == plain[number]
    assert all(len(set(texts)) == len(texts) for texts in eyes.seen.values())
    steps = max(eyes.steps, key=lambda number: eyes.steps[number])
    blind = Eyes(given_up=steps)
    found = list(map(outcomes, predictor.predict(SOURCES, settings=settings, watcher=blind)))
    assert found[:steps] + found[steps + 1 :] == plain[:steps] + plain[steps + 1 :]
    assert blind.steps[steps] == 2
    assert not found[steps][0][2] or len(found[steps][0][0].split()) <= 1


def test_what_is_decided_last_is_not_told_early(predictor: Predictor) -> None:
    eyes = Eyes()
    wanted = [outcomes(found) for found in predictor.predict(SOURCES, banned=["ba"])]
    assert [outcomes(found) for found in predictor.predict(SOURCES, banned=["ba"], watcher=eyes)] == wanted
    assert not eyes.told
    assert eyes.seen


def test_a_near_tie_is_not_told_before_it_is_settled(path: Path) -> None:
    bundle = load(path)
    with torch.no_grad():
        bundle.model.head.weight[5] = bundle.model.head.weight[6]
    predictor, eyes = Predictor(bundle, processes=1), Eyes()
    found = list(predictor.predict(SOURCES, settings=KINDS["diverse"], watcher=eyes))
    again = {number for number, answers in enumerate(found) if answers[0].repeated}
    assert again
    assert not again & eyes.told.keys()
    assert eyes.told


def test_recordings_are_watched_whole(tmp_path: Path) -> None:
    predictor = Predictor(load(listener(tmp_path / "heard")), processes=1)
    recordings = [written(tones(seconds)) for seconds in (0.2, 1.3, 0.3)]
    plain = [outcomes(found) for found in predictor.predict(recordings)]
    eyes, blind = Eyes(), Eyes(given_up=1, after=1)
    assert [outcomes(found) for found in predictor.predict(recordings, watcher=eyes)] == plain
    assert set(eyes.steps) == {0, 1, 2}
    found = [outcomes(found) for found in predictor.predict(recordings, watcher=blind)]
    assert (found[0], found[2]) == (plain[0], plain[2])
    assert len(found[1][0][0]) < len(plain[1][0][0])


def test_exploring_tells_the_probabilities_of_the_model(predictor: Predictor) -> None:
    source, words = SOURCES[20], predictor.task.words.vocabulary
    found = explore(predictor, source, tokens=["lo", "ba"], width=len(words))
    assert (found.tokens, found.text) == (["lo", "ba"], "lo ba")
    assert 0.3 < sum(way.probability for way in found.following) <= 1  # marks that are no token are left out
    given, read = words.ids(["lo", "ba"]), predictor.task.read(source)
    for way in found.following:
        ids = given if way.end else [*given, words.tokens.index(way.token)]
        [scored] = rescore(predictor.models, pad([list(read.ids)]), [ids], Decoding())
        assert way.probability == pytest.approx(2.718281828 ** scored.log_probs[2], rel=1e-4)


def test_the_way_ahead_is_that_of_greedy_search(predictor: Predictor) -> None:
    greedy, compared = Decoding(beam=1, min_length=1), 0
    for source in SOURCES:
        [[best]] = predictor.predict([source], settings=greedy)
        first = next(way for way in explore(predictor, source).following if not way.end)
        if best.finished:
            compared += 1
            assert first.token + first.ahead == best.text
    assert compared > 5
    assert explore(predictor, SOURCES[0], prefix="ki").tokens == ["ki"]
    for mistake, kind in (({"prefix": "zz"}, ConfigError), ({"tokens": ["zz"]}, ConfigError)):
        with pytest.raises(kind, match="cannot write"):
            explore(predictor, SOURCES[0], **mistake)
    with pytest.raises(DataError, match="empty"):
        explore(predictor, " ")


def test_a_look_ahead_is_given_up(predictor: Predictor) -> None:
    steps = list[int]()

    def look(going: Collection[int], tokens: Callable[[int], list[int] | None]) -> Collection[int]:
        steps.append(len(going))
        return going if len(steps) == 2 else ()

    explore(predictor, SOURCES[3], prefix="ki lo me ra", width=4, look=look)
    assert len(steps) == 2


def test_a_conversation_without_history_is_its_last_turn(predictor: Predictor) -> None:
    assert conversation(predictor.task, ["ba", " du "]).source == "du"
    with pytest.raises(DataError, match="cannot be said"):
        conversation(predictor.task, [" "])
