"""Films of moving shapes into captions: events and orders that training never had.

    python bench/films.py [--threads 2] [--out FOLDER] [key=value ...]

Shapes (3) of a colour (6) move in a direction (4), alone or one after another; films are painted, encoded as MP4 and
read back. 18 of the 72 events, and one order of two colours in six, are in the test alone; 6 other events, and another
order, in validation alone. Runs `antiphon train` and `antiphon evaluate` as a user would. Captions of the test that are
right in every word, in all and by what is new, with intervals. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from _commands import antiphon

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import films


def main() -> None:
    """Paint, train and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="cores to use; all where not given")
    parser.add_argument("--out", type=Path, help="keep films and run in this folder")
    parser.add_argument("settings", nargs="*", help="settings of the training, such as model.width=64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        train, valid, test = (films.write(out, part, count, seed) for part, count, seed in films.SETS)
        words = ["train", str(train), "--valid", str(valid), "--task", "captioning", "--out", str(out / "run")]
        settings = [f"{key}={value}" for key, value in films.SETTINGS.items()]
        trained = antiphon(*words, *settings, *options.settings, threads=options.threads)
        told = antiphon("evaluate", str(out / "run"), str(test), "--metrics", "exact", "--by", "new", "--json")
        found = json.loads(told.output)
    print(json.dumps({"films": found["sentences"], "training_cpu_seconds": round(trained.cpu_seconds),
                      "scores": found["scores"], "by_group": found["by_group"]}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
