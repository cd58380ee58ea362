"""What people touch first: the public names, each loaded when it is first used, so that importing is instant."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.core.errors import AntiphonError
    from antiphon.data.corpus import Pair
    from antiphon.estimator import Seq2Seq
    from antiphon.inference.bundle import load
    from antiphon.inference.chat import Chat
    from antiphon.inference.predictor import Predictor
    from antiphon.training.start import fit
    from antiphon.training.synthetic import distill

__version__ = "0.1.0"
__all__ = ["AntiphonError", "Chat", "Pair", "Predictor", "Seq2Seq", "__version__", "distill", "fit", "load"]

# oneDNN compiles each new shape of a matrix product, and a batch brings forty. It keeps the code of the last 1,024, and
# PyTorch as many again, which is a gigabyte; these are enough for the layers of one batch, which share their shapes.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "96")
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")

_HOMES = {
    "AntiphonError": "core.errors",
    "Chat": "inference.chat",
    "Pair": "data.corpus",
    "Predictor": "inference.predictor",
    "Seq2Seq": "estimator",
    "distill": "training.synthetic",
    "fit": "training.start",
    "load": "inference.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    return getattr(import_module(f"antiphon.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
