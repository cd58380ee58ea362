"""What people touch first: the public names, each loaded when it is first used, so that importing is instant."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.core.errors import AntiphonError
    from antiphon.data.corpus import Pair
    from antiphon.estimator import Seq2Seq
    from antiphon.inference.bundle import load
    from antiphon.inference.predictor import Predictor
    from antiphon.training.start import fit

__version__ = "0.1.0"
__all__ = ["AntiphonError", "Pair", "Predictor", "Seq2Seq", "__version__", "fit", "load"]

_HOMES = {
    "AntiphonError": "core.errors",
    "Pair": "data.corpus",
    "Predictor": "inference.predictor",
    "Seq2Seq": "estimator",
    "fit": "training.start",
    "load": "inference.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    return getattr(import_module(f"antiphon.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
