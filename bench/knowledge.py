"""Facts to text and dialogue with facts on real data, both ways to read facts: WebNLG, E2E and KdConv (film).

    ANTIPHON_DATA=... python bench/knowledge.py [--sets webnlg,e2e,kdconv] [--kinds linear,graph] [--out FOLDER]
                                                [key=value ...]

Runs `antiphon train` and `antiphon evaluate` as a user would, with copying, one thread; further settings go to the
training (data.augment.names=0 for the control without made-up names). WebNLG is scored on the categories of training
and on the others, E2E on all references. The published training part of KdConv is not among the data: its validation
part is trained on, and every sixth utterance of its test part is answered. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets, kept

Row = dict[str, Any]
SIXTH = 6
"""Of the utterances of KdConv's test part every so manieth."""
METRICS = "bleu:lowercase,chrf"
SETTINGS = ["data.empty=skip", "training.threads=1", "training.processes=1"]


def lines(path: Path) -> Iterator[Row]:
    """The objects of a JSONL file."""
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def webnlg(root: Path) -> dict[str, Iterable[Row]]:
    """Entries as they are, without what is not read."""

    def part(name: str) -> list[Row]:
        rows = lines(root / "webnlg" / f"{name}.jsonl")
        return [{"facts": row["triples"], "refs": row["refs"], "seen": row["seen"]} for row in rows if any(row["refs"])]

    test = part("test")
    return {
        "train": part("train"), "valid": part("dev"), "seen": [row for row in test if row["seen"]],
        "unseen": [row for row in test if not row["seen"]],
    }  # fmt: skip


def meaning(text: str) -> list[list[str]]:
    """`name[Blue Spice], eatType[coffee shop]` as facts about the name."""
    slots = re.findall(r"([\w ]+)\[([^\]]*)\]", text)
    name = dict(slots).get("name", "the place")
    facts = [[name, slot.strip(), value or "unknown"] for slot, value in slots if slot != "name"]
    return facts or [[name, "name", name]]


def e2e(root: Path) -> dict[str, Iterable[Row]]:
    """Meaning representations as facts."""
    table = (row.split("\t") for row in (root / "e2e_nlg/train.tsv").read_text(encoding="utf-8").splitlines())
    train = [{"facts": meaning(text), "target": target} for text, target in table]

    def part(name: str) -> list[Row]:
        rows = lines(root / "e2e_nlg" / f"{name}.multi_ref.jsonl")
        return [{"facts": meaning(row["mr"]), "refs": row["refs"]} for row in rows]

    return {"train": train, "valid": part("dev"), "test": part("test")}


def kdconv(root: Path) -> dict[str, Iterable[Row]]:
    """Every utterance after the first, with the two before it as its source and all facts of its dialogue."""

    def part(name: str) -> Iterator[Row]:
        for row in lines(root / "kdconv_zh" / f"film.{name}.jsonl"):
            said = [each["m"] for each in row["messages"]]
            facts = [fact for each in row["messages"] for fact in each.get("t", []) if all(fact)]
            for turn in range(1, len(said)):
                yield {"source": " ／ ".join(said[max(0, turn - 2) : turn]), "target": said[turn], "facts": facts}

    return {"train": list(part("dev")), "test": list(part("test"))[::SIXTH]}


SETS: dict[str, tuple[Callable[[Path], dict[str, Iterable[Row]]], list[str]]] = {
    "webnlg": (webnlg, ["--task", "data-to-text", "training.epochs=12"]),
    "e2e": (e2e, ["--task", "data-to-text", "training.epochs=4"]),
    "kdconv": (kdconv, ["--task", "dialogue", "model.head=copy", "data.shared=true"]),
}
"""What makes the pairs, and how they are trained on."""


def measure(name: str, kind: str, root: Path, out: Path, settings: list[str]) -> Row:
    """Train on one set with one reader of facts, and evaluate."""
    make, how = SETS[name]
    parts = make(root)
    for part, rows in parts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.{part}.jsonl").write_text(text, encoding="utf-8")
    valid = ["--valid", str(out / f"{name}.valid.jsonl")] if "valid" in parts else []
    run = out / f"{name}-{kind}"
    words = ["train", str(out / f"{name}.train.jsonl"), *valid, *how, "--out", str(run)]
    trained = antiphon(*words, *SETTINGS, f"model.knowledge.kind={kind}", *settings, threads=1)
    result: Row = {"training_cpu_seconds": round(trained.cpu_seconds)}
    metrics = METRICS if name != "kdconv" else "bleu:zh,distinct2"
    for part in parts.keys() - {"train", "valid"}:
        data = str(out / f"{name}.{part}.jsonl")
        told = antiphon("evaluate", str(run), data, "--metrics", metrics, "--json", threads=1)
        found = json.loads(told.output)
        names = [*metrics.split(","), "entity_coverage", "entity_recall"]
        scores = {metric: score for metric, score in found["scores"].items() if metric in names}
        result[part] = {"sentences": found["sentences"], "scores": scores, "by_entities": found["by_entities"]}
    return result


def main() -> None:
    """Measure the sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--kinds", default="linear,graph")
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    parser.add_argument("settings", nargs="*", help="settings of the training, such as training.minutes=20")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with kept(options.out) as out:
        result = {
            name: {kind: measure(name, kind, root, out, options.settings) for kind in options.kinds.split(",")}
            for name in options.sets.split(",")
        }
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
