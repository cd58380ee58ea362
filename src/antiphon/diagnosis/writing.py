"""Rows back into files of the format that they came from."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from antiphon.core.errors import require
from antiphon.data.corpus import kind_of_table


def write_rows(files: Sequence[Path], rows: Iterable[Any], like: Sequence[Path]) -> None:
    """Two parallel files, or a table as the suffix says: TSV, CSV, JSONL, Parquet; compressed where it ends in .gz or
    .xz. A Parquet file keeps the columns and types of the one it is `like`."""
    kind = kind_of_table(files[0])
    if len(files) == 1 and kind == ".parquet":
        _write_parquet(files[0], rows, like[0])
        return
    with ExitStack() as stack:
        streams = [stack.enter_context(_opened(path)) for path in files]
        if len(files) == 2:
            for row in rows:
                for stream, text in zip(streams, row, strict=True):
                    stream.write(text + "\n")
        elif kind == ".csv":
            csv.writer(streams[0], lineterminator="\n").writerows(rows)
        elif kind in (".jsonl", ".ndjson", ".json"):
            streams[0].writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            streams[0].writelines("\t".join(row) + "\n" for row in rows)


def _opened(path: Path) -> IO[str]:
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(path.suffix.lower(), open)
    stream: IO[str] = opener(path, "wt", encoding="utf-8", newline="\n")
    return stream


def _write_parquet(path: Path, rows: Iterable[Any], like: Path) -> None:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise require("parquet", "pyarrow") from None
    schema = parquet.read_schema(like)
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), path)
