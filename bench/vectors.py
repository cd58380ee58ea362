"""What word vectors from text without translations give to a training on few pairs.

    ANTIPHON_DATA=... python bench/vectors.py [--side source] [--pairs 3000] [--models transformer,gru] [--size 0.4]

The vectors are made here from all English (`--side target`: German) sentences of Multi30k: how much more often than by
chance two words stand within four words of each other (positive pointwise mutual information), cut down to the width
by a singular value decomposition (Levy and Goldberg 2014). `--size` is the root mean square of their numbers in the
file; 0.4 is that of GloVe, and no size should matter. Without them and with them the same training on the first pairs
of Multi30k is judged on all of its validation part. JSON on standard output; `--out` keeps the runs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from _commands import antiphon, data_sets, kept
from _judging import above, answers, scored

from antiphon.data.tokenizers import Word

WIDTH, REACH, RARE = 128, 4, 2
SETTINGS = (
    f"model.width={WIDTH}", "model.encoder.layers=1", "model.decoder.layers=1", "model.tie=target", "data.shared=false",
    "model.head=vocabulary", "data.source.tokenizer=word", "data.target.tokenizer=word", "training.epochs=12",
    "training.threads=1", "training.processes=1",
)  # fmt: skip


def main() -> None:
    """Make vectors, train without and with them, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("source", "target"), default="source")
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--models", default="transformer,gru")
    parser.add_argument("--size", type=float, default=0.4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="keep the runs there")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with kept(options.out) as folder:
        lines = {f"{part}.{side}": (root / f"multi30k/{part}.{side}").read_text(encoding="utf-8").splitlines()
                 for part in ("train", "val") for side in ("en", "de")}  # fmt: skip
        write(folder / "vectors.txt", lines["train.en" if options.side == "source" else "train.de"], options.size)
        for part, most in (("train", options.pairs), ("val", None)):
            pairs = zip(lines[f"{part}.en"][:most], lines[f"{part}.de"][:most], strict=True)
            (folder / f"{part}.tsv").write_text("".join(f"{en}\t{de}\n" for en, de in pairs), encoding="utf-8")
        told = [compare(model, seed, folder, options.side, lines["val.en"], [[text] for text in lines["val.de"]])
                for model in options.models.split(",") for seed in range(1, options.seeds + 1)]  # fmt: skip
    print(json.dumps({"side": options.side, "pairs": options.pairs, "size": options.size, "runs": told}, indent=1))


def compare(
    model: str, seed: int, folder: Path, side: str, sources: list[str], references: list[list[str]]
) -> dict[str, Any]:
    """One training without vectors, one with them."""
    kinds, said = [f"model.{part}.kind={model}" for part in ("encoder", "decoder")], {}
    for name, more in (("without", ()), ("with", (f"data.{side}.vectors={folder / 'vectors.txt'}",))):
        run = folder / f"{model}-{seed}-{name}"
        files = ["train", str(folder / "train.tsv"), "--valid", str(folder / "val.tsv"), "--out", str(run)]
        antiphon(*files, "--task", "translation", *SETTINGS, *kinds, *more, f"training.seed={seed}", threads=1)
        said[name] = answers(run, sources)
    scores = {name: scored("chrf", texts, references) for name, texts in said.items()}
    return {"model": model, "seed": seed, **scores, "gain": above("chrf", said["without"], said["with"], references)}


def write(path: Path, texts: list[str], size: float) -> None:
    """A file of vectors of all words that come twice or more."""
    cut = Word()
    sentences = [cut.encode(text) for text in texts]
    counts = Counter(word for words in sentences for word in words)
    index = {word: row for row, word in enumerate(word for word, count in counts.items() if count >= RARE)}
    beside = Counter[tuple[int, int]]()
    for words in sentences:
        rows = [index.get(word, -1) for word in words]
        for place, row in enumerate(rows):
            near = rows[max(0, place - REACH) : place] + rows[place + 1 : place + 1 + REACH]
            beside.update((row, other) for other in near if row >= 0 <= other)
    places, values = torch.tensor(list(beside)), torch.tensor(list(beside.values()), dtype=torch.float32)
    table = torch.zeros(len(index), len(index)).index_put_((places[:, 0], places[:, 1]), values)
    sums = table.sum(dim=1, keepdim=True)
    excess = (table * sums.sum() / (sums * sums.T)).log().nan_to_num(0.0, 0.0, 0.0).relu()
    torch.manual_seed(1)
    left, strength, _ = torch.svd_lowrank(excess, q=WIDTH, niter=4)
    vectors = left * strength.sqrt()
    vectors *= size / vectors.square().mean().sqrt()
    rows_of = (" ".join([word, *(f"{value:.5f}" for value in vectors[row].tolist())]) for word, row in index.items())
    path.write_text("".join(f"{line}\n" for line in rows_of), encoding="utf-8")


if __name__ == "__main__":
    main()
