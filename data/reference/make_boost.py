"""Writes boost.json: how well LightGBM, XGBoost and scikit-learn boost trees on public tables. Only figures, no rows.

    pip install lightgbm==4.7.0 xgboost==3.2.0 scikit-learn==1.9.1 numpy
    python3 make_boost.py [FOLDER]      FOLDER with the tables; default: what CONSORT_EXTRA_DATA names

What is trained on which rows is in `CASES` and `rows_of`, and is written beside the figures; tests/reference.rs reads the same rows.
"""
import json
import os
import pathlib
import sys

import lightgbm
import numpy
import sklearn
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score

from public_tables import rows_of

SETTINGS = {"rounds": 100, "leaves": 31, "bins": 255, "shrinkage": 0.1, "min_rows": 20, "l2": 1.0}
# Share of the rows a tree sees, share of the columns a node sees, seeds. scikit-learn draws no rows.
SAMPLES = {"all": (1.0, 1.0, [0]), "rows": (0.7, 1.0, [0, 1, 2, 3]), "columns": (1.0, 0.7, [0, 1, 2, 3])}
ALPHA, POWER = 0.9, 1.5
# file, loss, categories
CASES = {
    "higgs": ("higgs-subset/binary.train.gz", "logistic", []),
    "a9a": ("a9a/a9a.gz", "logistic", []),
    "covtype": ("covtype-20k/covtype.20k.data.gz", "softmax", []),
    "kddcup99": ("kddcup99/kddcup.data_10_percent.gz", "softmax", [1, 2, 3]),
    "casp": ("casp-protein/CASP.csv.gz", "squared", []),
} | {
    f"housing {loss}": ("california-housing/cal_housing.data.gz", loss, [])
    for loss in ("squared", "absolute", "huber", "quantile", "poisson", "gamma", "tweedie")
}


def measure(loss, y, p):
    """Mean loss of the test rows, and the share of pairs (two classes) or rows (more) in the wrong order or class."""
    if loss == "logistic":
        q = numpy.where(y == 1, p, 1 - p)
        return {"loss": -numpy.log(q).mean(), "error": 1 - roc_auc_score(y, p)}
    if loss == "softmax":
        return {"loss": -numpy.log(p[numpy.arange(len(y)), y.astype(int)]).mean(), "error": (p.argmax(1) != y).mean()}
    r = numpy.abs(y - p)
    of = {
        "squared": lambda: r * r / 2,
        "absolute": lambda: r,
        "huber": lambda: numpy.where(r <= ALPHA, r * r / 2, ALPHA * (r - ALPHA / 2)),
        "quantile": lambda: numpy.where(y >= p, ALPHA * r, (1 - ALPHA) * r),
        "poisson": lambda: p - y * numpy.log(p),
        "gamma": lambda: y / p + numpy.log(p),
        "tweedie": lambda: p ** (2 - POWER) / (2 - POWER) - y * p ** (1 - POWER) / (1 - POWER),
    }
    return {"loss": of[loss]().mean()}


def by_lightgbm(loss, categories, x, y, xt, rows, columns, seed):
    names = {"logistic": "binary", "softmax": "multiclass", "squared": "regression", "absolute": "regression_l1"}
    settings = {
        "objective": names.get(loss, loss), "num_leaves": SETTINGS["leaves"], "max_bin": SETTINGS["bins"],
        "learning_rate": SETTINGS["shrinkage"], "min_data_in_leaf": SETTINGS["min_rows"], "lambda_l2": SETTINGS["l2"],
        "bagging_fraction": rows, "bagging_freq": int(rows < 1), "feature_fraction_bynode": columns, "seed": seed,
        "alpha": ALPHA, "tweedie_variance_power": POWER, "deterministic": True, "num_threads": 2, "verbose": -1,
    } | ({"num_class": int(y.max()) + 1} if loss == "softmax" else {})
    table = lightgbm.Dataset(x, y, categorical_feature=categories, params=settings)
    return settings, lightgbm.train(settings, table, SETTINGS["rounds"]).predict(xt, num_threads=2)


def by_xgboost(loss, categories, x, y, xt, rows, columns, seed):
    names = {"logistic": "binary:logistic", "softmax": "multi:softprob", "squared": "reg:squarederror", "gamma": "reg:gamma",
             "absolute": "reg:absoluteerror", "quantile": "reg:quantileerror", "poisson": "count:poisson", "tweedie": "reg:tweedie"}
    if loss not in names:
        return None  # Its pseudo-Huber is another loss.
    # It counts no rows: where hessians are 1 their sum does, else its default bounds it.
    unit = loss in ("squared", "absolute", "quantile")
    settings = {
        "objective": names[loss], "tree_method": "hist", "grow_policy": "lossguide", "max_depth": 0,
        "max_leaves": SETTINGS["leaves"], "max_bin": SETTINGS["bins"], "eta": SETTINGS["shrinkage"], "lambda": SETTINGS["l2"],
        "min_child_weight": SETTINGS["min_rows"] if unit else 1, "subsample": rows, "colsample_bynode": columns, "seed": seed,
        "nthread": 2,
    }
    settings |= {"num_class": int(y.max()) + 1} if loss == "softmax" else {}
    settings |= {"quantile_alpha": ALPHA} if loss == "quantile" else {}
    settings |= {"tweedie_variance_power": POWER} if loss == "tweedie" else {}
    types = ["c" if column in categories else "q" for column in range(x.shape[1])]
    tables = [xgboost.DMatrix(part, label, feature_types=types, enable_categorical=True) for part, label in ((x, y), (xt, None))]
    return settings, xgboost.train(settings, tables[0], SETTINGS["rounds"]).predict(tables[1])


def by_sklearn(loss, categories, x, y, xt, rows, columns, seed):
    names = {"squared": "squared_error", "absolute": "absolute_error", "quantile": "quantile", "poisson": "poisson", "gamma": "gamma"}
    is_class = loss in ("logistic", "softmax")
    if rows < 1 or not (is_class or loss in names):
        return None
    settings = {
        "max_iter": SETTINGS["rounds"], "max_leaf_nodes": SETTINGS["leaves"], "max_bins": SETTINGS["bins"],
        "learning_rate": SETTINGS["shrinkage"], "min_samples_leaf": SETTINGS["min_rows"], "l2_regularization": SETTINGS["l2"],
        "max_features": columns, "early_stopping": False, "random_state": seed, "categorical_features": categories or None,
    }
    if is_class:
        p = HistGradientBoostingClassifier(**settings).fit(x, y).predict_proba(xt)
        return settings, p[:, 1] if loss == "logistic" else p
    settings |= {"loss": names[loss]} | ({"quantile": ALPHA} if loss == "quantile" else {})
    return settings, HistGradientBoostingRegressor(**settings).fit(x, y).predict(xt)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["CONSORT_EXTRA_DATA"])
    peers = {"lightgbm": by_lightgbm, "xgboost": by_xgboost, "scikit-learn": by_sklearn}
    cases = []
    for name, (file, loss, categories) in CASES.items():
        x, y, test = rows_of(folder, file)
        figures, used = [], {}
        for sample, (rows, columns, seeds) in SAMPLES.items():
            for peer, train in peers.items():
                for seed in seeds:
                    done = train(loss, categories, x[~test], y[~test], x[test], rows, columns, seed)
                    if done is None:
                        continue
                    # Settings that say which sample it was are in the figure.
                    used.setdefault(peer, done[0])
                    found = {of: float(f"{value:.6g}") for of, value in measure(loss, y[test], done[1].astype(float)).items()}
                    figures.append({"sample": sample, "peer": peer, "seed": seed} | found)
                    print(name, figures[-1], flush=True)
        cases.append({"name": name, "file": file, "loss": loss, "categories": categories, "train_rows": int((~test).sum()),
                      "test_rows": int(test.sum()), "columns": x.shape[1], "settings": used, "figures": figures})
    versions = {module.__name__: module.__version__ for module in (lightgbm, xgboost, sklearn, numpy)}
    samples = {name: {"rows": rows, "columns": columns} for name, (rows, columns, _) in SAMPLES.items()}
    head = {"made_with": versions, "settings": SETTINGS, "alpha": ALPHA, "power": POWER, "samples": samples}
    text = json.dumps(head)[:-1] + ', "cases": [\n'
    of_case = lambda case: json.dumps(case)[:-1].replace('"figures": [', '"figures": [\n  ').replace('}, {"sample"', '},\n  {"sample"') + "}"
    text += ",\n".join(of_case(case) for case in cases) + "\n]}\n"
    json.loads(text)
    pathlib.Path(__file__).with_name("boost.json").write_text(text)


main()
