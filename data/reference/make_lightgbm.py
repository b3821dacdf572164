"""Writes lightgbm.json: models that LightGBM (PyPI, MIT licence) trained on random numbers, and what it says of some rows.

    pip install lightgbm==4.7.0 numpy
    python3 make_lightgbm.py
"""
import json
import pathlib

import lightgbm
import numpy

random = numpy.random.default_rng(0)
n = 400
x = random.normal(size=(n, 4)).round(3)
x[::7, 1] = numpy.nan
x[:, 3] = random.integers(0, 80, n)
x[::11, 3] = numpy.nan
filled = numpy.nan_to_num(x)
amount = numpy.abs(filled[:, 0]) + 0.1
cases = [
    ("binary", {}, (filled[:, 0] + filled[:, 3] % 3 > 1) * 1.0),
    ("multiclass", {"num_class": 3}, filled[:, 3] % 3),
    ("regression", {}, filled[:, 0] * 2 + filled[:, 3] % 5),
    ("regression_l1", {}, filled[:, 0]),
    ("huber", {"alpha": 0.9}, filled[:, 0]),
    ("quantile", {"alpha": 0.3}, filled[:, 0]),
    ("poisson", {}, filled[:, 3] % 4),
    ("gamma", {}, amount),
    ("tweedie", {}, amount),
]
shown = x[:12]
told = []
for objective, settings, y in cases:
    for categorical in [], [3]:
        settings = {"objective": objective, "verbose": -1, "num_leaves": 6, "min_data_in_leaf": 5, "min_data_per_group": 5,
                    "cat_smooth": 1, **settings}
        booster = lightgbm.train(settings, lightgbm.Dataset(x, y, categorical_feature=categorical), 3)
        text = booster.model_to_string()
        told.append({
            "model": text[:text.index("parameters:")] + "parameters:\nend of parameters\n",
            "rows": [[None if numpy.isnan(value) else value for value in row] for row in shown],
            "scores": booster.predict(shown, raw_score=True).ravel().tolist(),
            "contributions": booster.predict(shown, pred_contrib=True).ravel().tolist(),
            "leaves": booster.predict(shown, pred_leaf=True).ravel().tolist(),
        })
path = pathlib.Path(__file__).with_name("lightgbm.json")
path.write_text(json.dumps(told, separators=(",", ":")) + "\n")
