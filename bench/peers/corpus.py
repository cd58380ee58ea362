"""The data that all are measured on: Multi30k, English to German, in the 10,000 pieces of one joint BPE."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

WORK = Path(__file__).parent.parent / ".work"
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
PARTS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
PIECES = 10_000


def available() -> bool:
    """Whether the data is there; says what to do if it is not."""
    found = "ANTIPHON_DATA" in os.environ and (Path(os.environ["ANTIPHON_DATA"]) / "multi30k" / "train.en").exists()
    if not found:
        print("skipped: this needs Multi30k; set ANTIPHON_DATA to the folder of the data sets")
    return found


def prepare() -> Path:
    """A folder with `train.en`, `train.de`, ... as pieces between spaces, `vocabulary.txt` and `bpe.model`; made once.

    The vocabulary is the special tokens and every piece that occurs in the training part, the most frequent first.
    """
    folder, raw = WORK / "multi30k", Path(os.environ["ANTIPHON_DATA"]) / "multi30k"
    if (folder / "vocabulary.txt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    processor = _learn(folder, raw)
    counts: Counter[str] = Counter()
    for part, name in PARTS.items():
        for language in ("en", "de"):
            lines = (raw / f"{name}.{language}").read_text(encoding="utf-8").split("\n")[:-1]
            cut = processor.encode(lines, out_type=str)
            _write(folder / f"{part}.{language}", [" ".join(pieces) for pieces in cut])
            if part == "train":
                counts.update(piece for pieces in cut for piece in pieces)
    _write(folder / "vocabulary.txt", [*SPECIAL, *(piece for piece, _ in counts.most_common())])
    return folder


def _learn(folder: Path, raw: Path):  # type: ignore[no-untyped-def]
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=[str(raw / "train.en"), str(raw / "train.de")], model_prefix=str(folder / "bpe"), vocab_size=PIECES,
        model_type="bpe", character_coverage=1.0, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "bpe.model"))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def read_ids(folder: Path, part: str) -> list[tuple[list[int], list[int]]]:
    """Pairs of one part as ids of the vocabulary, each closed by `</s>`."""
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    numbers = {word: number for number, word in enumerate(words)}

    def side(language: str) -> list[list[int]]:
        lines = (folder / f"{part}.{language}").read_text(encoding="utf-8").split("\n")[:-1]
        return [[*(numbers.get(word, 1) for word in line.split(" ")), 3] for line in lines]

    return list(zip(side("en"), side("de"), strict=True))


def write_vocabulary(task: dict[str, Any], count: str = "") -> str:
    """The vocabulary as most peers want it: a file of pieces without the special tokens, which they add, and counts."""
    lines = (Path(task["data"]) / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[len(SPECIAL) : -1]
    path = Path(task["folder"]) / "vocabulary.txt"
    _write(path, [line + count for line in lines])
    return str(path)
