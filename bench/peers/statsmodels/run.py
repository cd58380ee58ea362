"""Real series that come with statsmodels, and its ARIMA models on them. Requests and answers are JSON.

{"series": true} gives each set's series. {"values", "origins", "horizon", "orders"} gives, for each origin, mean and
deviation of the steps from there on: of the orders (p, d, q, P, D, Q, season) one is chosen by AIC on what is before
the first origin, fitted there once, and told what came until each origin.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
from statsmodels.datasets import co2, macrodata, sunspots
from statsmodels.tsa.statespace.sarimax import SARIMAX


def series() -> dict[str, dict[str, list[float]]]:
    """Sunspots a year, 1700 to 2008; CO2 at Mauna Loa, monthly means 1958 to 2001; twelve quarterly series, 1959 to
    2009."""
    monthly = co2.load_pandas().data["co2"].resample("MS").mean().ffill()
    quarterly = macrodata.load_pandas().data.drop(columns=["year", "quarter"])
    return {
        "sunspots": {"sunspots": sunspots.load_pandas().data["SUNACTIVITY"].tolist()},
        "co2": {"co2": monthly.tolist()},
        "macro": {name: quarterly[name].tolist() for name in quarterly.columns},
    }


def fitted(values: np.ndarray, order: list[int]) -> Any:
    """The model of an order, with a trend where nothing is differenced."""
    p, d, q, *seasonal = order
    trend = "n" if d or seasonal[1] else "c"
    model = SARIMAX(values, order=(p, d, q), seasonal_order=tuple(seasonal), trend=trend)
    return model.fit(disp=False, maxiter=200)


def forecast(request: dict[str, Any]) -> dict[str, Any]:
    """Means and deviations by origin, and the order."""
    values, origins = np.asarray(request["values"]), request["origins"]
    known = values[: origins[0]]
    scale = known.std()
    found = [(fitted(known / scale, order), order) for order in request["orders"]]
    model, order = min(found, key=lambda each: each[0].aic)
    rows = []
    for before, origin in zip([origins[0], *origins], origins, strict=False):
        if origin > before:
            model = model.append(values[before:origin] / scale, refit=False)
        ahead = model.get_forecast(request["horizon"])
        rows.append([(scale * ahead.predicted_mean).tolist(), (scale * ahead.se_mean).tolist()])
    return {"order": order, "forecasts": rows}


def main() -> None:
    """One request from standard input."""
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    json.dump(series() if "series" in request else forecast(request), sys.stdout)


if __name__ == "__main__":
    main()
