"""Settings that a run is given: what does nothing, what could not be found again, and what would end in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.training.given import enough_positions, settings
from antiphon.training.start import fit, resume
from runs import light, words
from starts import QUICK


@pytest.mark.parametrize(("given", "said"), [
    ({"training.likelihood": 0.5}, "training.likelihood does nothing with this objective"),
    ({"training.reward": "bleu"}, "training.reward does nothing with this objective.*self-critical or minimum-risk"),
    ({"training.samples": 9, "training.objective": "self-critical"}, "training.samples does nothing"),
    ({"training.rollouts": 3}, "add training.objective=adversarial"),
    ({"training.coverage": 1.0, "model.attention": "none"}, "training.coverage needs attention"),
    ({"training.seed": 1 << 64}, "training.seed must have 64 bits at most"),
    ({"decoding.seed": -(1 << 64)}, "decoding.seed must have 64 bits"),
])  # fmt: skip
def test_what_would_do_nothing_or_fail_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(given, None)


def test_what_an_objective_looks_at_is_taken() -> None:
    assert settings({"training.reward": "bleu", "training.objective": "self-critical"}, None).training.reward == "bleu"
    assert settings({"training.reward": ""}, None).training.reward == ""


def test_files_are_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("groups.txt").write_text("abc cab\n")
    Path("elsewhere").mkdir()
    given = {**QUICK, "training.steps": 2, "data.augment.synonyms": "groups.txt"}
    with pytest.raises(KeyboardInterrupt):
        fit(words(40), out="run", assignments=given, observers=[Interrupting()])
    monkeypatch.chdir("elsewhere")
    assert resume(tmp_path / "run").reason == "steps"
    assert settings({"data.augment.synonyms": "wordnet"}, None).data.augment.synonyms == "wordnet"


class Interrupting:
    """Ends a run in its first step as Ctrl-C in a notebook does."""

    def step(self, event: Any) -> None:
        raise KeyboardInterrupt


def test_learned_positions_are_enough_for_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    kinds = {"model.encoder.kind": "transformer", "model.decoder.kind": "gru", "model.positions": "learned"}
    given = {**QUICK, **kinds, "training.steps": 2, "model.max_positions": 4}
    result = fit(words(40), out=tmp_path / "run", assignments=given)
    assert any("source cut to max_length=4" in note.text for note in result.notes)
    config = override(Config(), {**kinds, "model.max_positions": 8, "data.source.max_length": 9})
    with pytest.raises(ConfigError, match=r"data\.source\.max_length is above model\.max_positions.*got 9 and 8"):
        enough_positions(config)
    taught = override(Config(), {"training.teachers": (str(tmp_path / "run"),), "data.source.max_length": 9})
    with pytest.raises(ConfigError, match=rf"above model\.max_positions of {tmp_path}"):
        enough_positions(taught)
    enough_positions(override(config, {"model.encoder.kind": "gru"}))
    frames = {"data.source.kind": "frames", "model.frontend.reduce": 2}
    enough_positions(override(config, {**frames, "data.source.max_length": 16}))
    with pytest.raises(ConfigError, match=r"got 17 and 8 of 2 frames\); take data\.source\.max_length=16"):
        enough_positions(override(config, {**frames, "data.source.max_length": 17}))


def test_mixing_is_for_what_is_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.mix is for data that is mixed in"):
        fit(words(), out=tmp_path / "run", assignments={"data.mix": 0.9})
    with pytest.raises(DataError, match=r"mixed-in data, .*: no pair is left to train on"):
        fit(words(), out=tmp_path / "run", assignments={**QUICK, "data.too_long": "skip", "data.source.max_length": 9},
            mix=[("a" * 50, "b")])  # fmt: skip
    with pytest.raises(DataError, match="there are no pairs"):
        fit(None, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
