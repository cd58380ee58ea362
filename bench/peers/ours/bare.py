"""Decodes with CTranslate2 called bare on the files of a model that was exported to it: what the `Predictor` costs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from meter import Stopwatch, read_task

from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor


def main() -> None:
    """Decode the test part once to warm up and once on the clock."""
    task = read_task()
    predictor = Predictor(load(Path(task["run"])), processes=task["threads"])
    translator, vocabulary = predictor.engine.translator, predictor.task.words.vocabulary
    length, shortlist = task.get("length"), predictor.engine.shortlist
    limits = {"min_decoding_length": length, "max_decoding_length": length} if length else {}
    lines = Path(task["source"]).read_text(encoding="utf-8").split("\n")[:-1]

    def answers(asked: list[str]) -> list[str]:
        sources = [[*map(str, vocabulary.ids(line.split(" "))), "3"] for line in asked]
        found = translator.translate_batch(
            sources, beam_size=5, length_penalty=1.0, max_batch_size=task["batch"], use_vmap=shortlist, **limits
        )
        return [" ".join(vocabulary.tokens_of(map(int, result.hypotheses[0]))) for result in found]

    answers(lines[:: len(lines) // 64])
    watch = Stopwatch()
    watch.report(answers(lines))


if __name__ == "__main__":
    main()
