"""Writes ensemble.json: how well scikit-learn's ensembles predict public tables, with ten seeds. Only figures, no rows.

    pip install scikit-learn==1.9.1 numpy
    python3 make_ensemble.py [FOLDER]      FOLDER with the tables; default: what CONSORT_EXTRA_DATA names

Which rows are trained on is in `public_tables.py`; tests/reference.rs reads the same. Linear models see standardised values.
"""
import json
import os
import pathlib
import sys

import numpy
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from public_tables import rows_of

SEEDS = range(10)
# File, whether the target is classes, what is trained: the larger tables would take hours with all of them.
TABLES = {
    "higgs": ("higgs-subset/binary.train.gz", True, ["forest", "extra", "bag", "adaboost", "vote", "stack", "platt", "isotonic"]),
    "covtype": ("covtype-20k/covtype.20k.data.gz", True, ["forest", "extra", "adaboost"]),
    "casp": ("casp-protein/CASP.csv.gz", False, ["forest", "extra"]),
    "housing": ("california-housing/cal_housing.data.gz", False, ["forest", "extra"]),
}
L2 = 3e-4


def logistic(n):
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / (n * L2), max_iter=5000, tol=1e-6))


def small_forest(seed):
    return RandomForestClassifier(50, min_samples_leaf=2, random_state=seed, n_jobs=2)


def shuffled(seed):
    return KFold(5, shuffle=True, random_state=seed)


def svm(n):
    return make_pipeline(StandardScaler(), LinearSVC(C=1 / (2 * n * L2), random_state=0, max_iter=20_000))


CLASSIFIERS = {
    "forest": lambda seed, n: RandomForestClassifier(100, min_samples_leaf=2, random_state=seed, n_jobs=2),
    "extra": lambda seed, n: ExtraTreesClassifier(100, min_samples_leaf=2, random_state=seed, n_jobs=2),
    "bag": lambda seed, n: BaggingClassifier(logistic(n), 10, random_state=seed, n_jobs=2),
    "adaboost": lambda seed, n: AdaBoostClassifier(DecisionTreeClassifier(max_depth=3, random_state=seed), n_estimators=30, random_state=seed),
    "vote": lambda seed, n: VotingClassifier([("l", logistic(n)), ("f", small_forest(seed))], voting="soft"),
    "stack": lambda seed, n: StackingClassifier(
        [("l", logistic(n)), ("f", small_forest(seed))], LogisticRegression(C=1 / (n * L2), max_iter=5000), cv=shuffled(seed)
    ),
    "platt": lambda seed, n: CalibratedClassifierCV(svm(n), method="sigmoid", cv=shuffled(seed), ensemble=False),
    "isotonic": lambda seed, n: CalibratedClassifierCV(svm(n), method="isotonic", cv=shuffled(seed), ensemble=False),
}
REGRESSORS = {
    "forest": lambda seed, n: RandomForestRegressor(100, min_samples_leaf=2, random_state=seed, n_jobs=2),
    "extra": lambda seed, n: ExtraTreesRegressor(100, min_samples_leaf=2, random_state=seed, n_jobs=2),
}


def figures_of(model, is_class, xt, yt):
    """Mean loss of the test rows, and the share in the wrong class; of numbers the mean squared error."""
    if not is_class:
        return {"loss": float(((model.predict(xt) - yt) ** 2).mean())}
    p = model.predict_proba(xt)
    of_class = numpy.clip(p[numpy.arange(len(yt)), numpy.searchsorted(model.classes_, yt)], 1e-15, 1)
    found = {"loss": float(-numpy.log(of_class).mean()), "error": float((model.classes_[p.argmax(1)] != yt).mean())}
    return found | ({"auc": float(roc_auc_score(yt, p[:, 1]))} if p.shape[1] == 2 else {})


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["CONSORT_EXTRA_DATA"])
    cases = []
    for table, (file, is_class, names) in TABLES.items():
        x, y, is_test = rows_of(folder, file)
        (x, xt), (y, yt) = (x[~is_test], x[is_test]), (y[~is_test], y[is_test])
        for name in names:
            make = (CLASSIFIERS if is_class else REGRESSORS)[name]
            figures = [figures_of(make(seed, len(y)).fit(x, y), is_class, xt, yt) for seed in SEEDS]
            figures = [{key: round(value, 6) for key, value in of_seed.items()} for of_seed in figures]
            print(table, name, figures[0], flush=True)
            cases.append({"table": table, "file": file, "ensemble": name, "is_class": is_class, "train_rows": len(y),
                          "test_rows": len(yt), "columns": x.shape[1], "figures": figures})
    text = ",\n".join(json.dumps(case) for case in cases)
    head = json.dumps({"sklearn": sklearn.__version__, "numpy": numpy.__version__})
    out = pathlib.Path(__file__).with_name("ensemble.json")
    out.write_text(f'{{"made_with": {head}, "l2": {L2}, "cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
