#!/usr/bin/env python3
"""Writes the reference models of this folder: NAME.json, one a model. README.md says what the fields mean.

usage: make_reference.py [OUT_DIR]          default: the folder of this script

Two independent answers for each model: scikit-learn's (statsmodels' for Poisson rates), and our own Newton iteration on the
same objective in float64. They must agree; the one with the smaller gradient is stored. Stops with an error if they do not.
Python environment: as for ../make_data.py.
"""
import json
import pathlib
import sys
import warnings

import h5py
import numpy as np
import scipy
import sklearn
import sklearn.linear_model as lm
import sklearn.metrics as sm
import sklearn.svm
import statsmodels
import statsmodels.api as sm_api

HERE = pathlib.Path(__file__).parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
DATA = HERE.parent
L2 = 3e-4  # Consort's default


# ---- tables ----------------------------------------------------------------------------------------------------------

def load(file, group=None):
    """(feature names, X float64, y as stored, further columns) of a table."""
    with h5py.File(DATA / file) as f:
        g = f[group] if group else f
        if isinstance(g["X"], h5py.Group):
            names = sorted(g["X"])
            x = np.column_stack([g["X"][name][...] for name in names]).astype("f8")
        else:
            x, names = g["X"][...].astype("f8"), list(g["X"].attrs["feature_names"])
        y = g["y"].asstr()[...].astype(str) if g["y"].dtype == object else g["y"][...]
        more = {k: g[k][...] for k in g if k not in ("X", "y")}
    return names, x, y, more


class Standard:
    """Population mean and deviation, with row weights; a constant column keeps scale 1 and so becomes zeros."""

    def __init__(self, x, w):
        self.mean = np.average(x, axis=0, weights=w)
        self.scale = np.sqrt(np.average((x - self.mean) ** 2, axis=0, weights=w))
        self.mean[x.min(0) == x.max(0)] = x[0, x.min(0) == x.max(0)]  # exactly
        self.scale[x.min(0) == x.max(0)] = 0.0
        self.scale[self.scale == 0] = 1.0

    def __call__(self, x):
        return (x - self.mean) / self.scale


# ---- losses: scores (n, k) -> mean loss parts, gradient (n, k), hessian (n, k, k) --------------------------------------

def squared(s, y):
    r = s - y[:, None]
    return 0.5 * r[:, 0] ** 2, r, np.ones((len(y), 1, 1))


def logistic(s, y):
    s0 = s[:, 0]
    p = 1 / (1 + np.exp(-s0))
    return np.logaddexp(0, s0) - y * s0, (p - y)[:, None], (p * (1 - p))[:, None, None]


def softmax(s, y):
    shifted = s - s.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    p = np.exp(shifted) / total
    hit = np.eye(s.shape[1])[y]
    loss = np.log(total[:, 0]) - shifted[np.arange(len(y)), y]
    return loss, p - hit, np.einsum("ni,ij->nij", p, np.eye(s.shape[1])) - np.einsum("ni,nj->nij", p, p)


def squared_hinge(s, y):
    sign = 2.0 * y - 1
    gap = np.maximum(0, 1 - sign * s[:, 0])
    return gap ** 2, (-2 * sign * gap)[:, None], 2.0 * (gap > 0)[:, None, None]


def poisson(s, y):
    e = np.exp(s[:, 0])
    return e - y * s[:, 0], (e - y)[:, None], e[:, None, None]


# ---- our own minimiser: mean weighted loss + l2/2 |w|^2 (+ l1 |w|_1), intercept free -----------------------------------

def value(loss, x, y, w, offset, coef, intercept, l1, l2):
    part, _, _ = loss(x @ coef.T + intercept + offset[:, None], y)
    return float((w * part).sum() / w.sum() + l1 * np.abs(coef).sum() + l2 / 2 * (coef ** 2).sum())


def smooth_gradient(loss, x, y, w, offset, coef, intercept, l2):
    """Gradient of the objective without its l1 term: (k, d + 1), intercept last."""
    _, g, _ = loss(x @ coef.T + intercept + offset[:, None], y)
    g = g * w[:, None] / w.sum()
    return np.column_stack([g.T @ x + l2 * coef, g.sum(0)])


def violation(gradient, coef, l1):
    """Largest distance of a (sub)gradient entry from 0."""
    g = gradient[:, :-1]
    at_zero = np.maximum(0, np.abs(g) - l1)
    moving = np.abs(g + l1 * np.sign(coef))
    return float(max(np.where(coef == 0, at_zero, moving).max(), np.abs(gradient[:, -1]).max()))


def newton(loss, x, y, w, offset, k, l1, l2, coef, intercept):
    """Damped Newton from a given start. With l1 the start's signs say which coefficients may move: it polishes."""
    n, d = x.shape
    coef, intercept = coef.copy(), intercept.copy()
    signs = np.sign(coef) if l1 else np.zeros_like(coef)
    free = np.column_stack([(coef != 0) if l1 else np.ones_like(coef, bool), np.ones((k, 1), bool)]).reshape(-1)
    xi = np.column_stack([x, np.ones(n)])
    for _ in range(100):
        _, _, h = loss(x @ coef.T + intercept + offset[:, None], y)
        gradient = smooth_gradient(loss, x, y, w, offset, coef, intercept, l2)
        gradient[:, :-1] += l1 * signs
        gradient = gradient.reshape(-1)
        hessian = np.empty((k, d + 1, k, d + 1))
        for a in range(k):
            for b in range(k):
                hessian[a, :, b, :] = xi.T @ (xi * (w * h[:, a, b] / w.sum())[:, None])
            hessian[a, np.arange(d), a, np.arange(d)] += l2
        hessian = hessian.reshape(k * (d + 1), -1)[np.ix_(free, free)]
        step = np.zeros(k * (d + 1))
        step[free] = np.linalg.lstsq(hessian, gradient[free], rcond=1e-14)[0]
        step = step.reshape(k, d + 1)
        before, t = value(loss, x, y, w, offset, coef, intercept, l1, l2), 1.0
        while True:
            c, i = coef - t * step[:, :-1], intercept - t * step[:, -1]
            after = value(loss, x, y, w, offset, c, i, l1, l2)
            if after <= before + 1e-15 * abs(before) or t < 1e-8:
                break
            t /= 2
        coef, intercept = c, i
        if np.abs(step[:, :-1]).max() < 1e-13 * max(1.0, np.abs(coef).max()):
            break
    if k > 1:
        intercept = intercept - intercept.mean()
    if l1:
        assert (np.sign(coef) == signs).all(), "a coefficient changed its sign while polishing"
    return coef, intercept


# ---- metrics ---------------------------------------------------------------------------------------------------------

def metrics(kind, s, y, w, k):
    """Of scores s (n, k) against classes or numbers y, with row weights w."""
    out = {}
    if kind in ("logistic", "svm"):
        guess = s.argmax(1) if k > 1 else (s[:, 0] > 0).astype(int)
        out["accuracy"] = sm.accuracy_score(y, guess, sample_weight=w)
        out["balanced_accuracy"] = sm.balanced_accuracy_score(y, guess, sample_weight=w)
        out["confusion"] = sm.confusion_matrix(y, guess, sample_weight=w).tolist()
        if k == 1:
            out["auc"] = sm.roc_auc_score(y, s[:, 0], sample_weight=w)
        if kind == "logistic":
            out["log_loss"] = np.average((logistic if k == 1 else softmax)(s, y)[0], weights=w)
            if k > 1:
                p = scipy.special.softmax(s, axis=1)
                out["auc_macro_one_vs_rest"] = sm.roc_auc_score(y, p, multi_class="ovr", average="macro")
    else:
        p = np.exp(s[:, 0]) if kind == "poisson" else s[:, 0]
        out["rmse"] = sm.root_mean_squared_error(y, p, sample_weight=w)
        out["mae"] = sm.mean_absolute_error(y, p, sample_weight=w)
        out["r2"] = sm.r2_score(y, p, sample_weight=w)
        if kind == "poisson":
            out["mean_poisson_deviance"] = sm.mean_poisson_deviance(y, p, sample_weight=w)
    return {key: v if isinstance(v, list) else float(v) for key, v in out.items()}


# ---- one model -------------------------------------------------------------------------------------------------------

def reference(name, kind, file, peer, *, group=None, test=None, l1=0.0, l2=0.0, weight=None, class_weight=None, offset=None,
              close=1e-6):
    """Fits, compares, writes NAME.json. `peer(x, y, w, offset) -> (coef (k, d), intercept (k,), what it was)`."""
    names, raw, stored, more = load(file, group)
    n = len(raw)
    row_weight = more[weight].astype("f8") if weight else np.ones(n)
    standard = Standard(raw, row_weight)
    x = standard(raw)
    off = more[offset].astype("f8") if offset else np.zeros(n)
    classes = None
    if kind in ("logistic", "svm"):
        classes, y = np.unique(stored, return_inverse=True)
    else:
        y = stored.astype("f8")
    w = row_weight.copy()
    if class_weight == "balanced":
        per_class = np.bincount(y, weights=row_weight)
        w = w * (row_weight.sum() / (len(classes) * per_class))[y]
    one_vs_rest = kind == "svm" and len(classes) > 2
    k = len(classes) if classes is not None and len(classes) > 2 else 1

    coef, intercept, what = peer(x, y, w, off)
    coef, intercept = np.atleast_2d(np.asarray(coef, "f8")), np.atleast_1d(np.asarray(intercept, "f8")).reshape(-1)
    if k > 1 and not one_vs_rest:
        intercept = intercept - intercept.mean()
    loss = {"linear": squared, "poisson": poisson, "svm": squared_hinge, "logistic": softmax if k > 1 else logistic}[kind]

    # One problem for all outputs, except one-vs-rest: one a class.
    problems = [(slice(c, c + 1), (y == c).astype(int), 1) for c in range(k)] if one_vs_rest else [(slice(0, k), y, k)]
    best_coef, best_intercept = np.empty_like(coef), np.empty_like(intercept)
    objective, worst = [], 0.0
    for rows, target, outputs in problems:
        c0, i0 = coef[rows], intercept[rows]
        start = (c0, i0) if l1 else (np.zeros_like(c0), np.zeros_like(i0))
        if kind == "poisson":
            start = (start[0], np.log([np.average(y, weights=w) / np.average(np.exp(off), weights=w)]))
        c, i = newton(loss, x, target, w, off, outputs, l1, l2, *start)
        here = (loss, x, target, w, off)
        theirs = violation(smooth_gradient(*here, c0, i0, l2), c0, l1)
        ours = violation(smooth_gradient(*here, c, i, l2), c, l1)
        gap = max(np.abs(c - c0).max() / max(1e-12, np.abs(c).max()), np.abs(i - i0).max() / max(1.0, np.abs(i).max()))
        assert gap < close, f"{name}: two programs differ by {gap:.1e} (gradients: theirs {theirs:.1e}, ours {ours:.1e})"
        best_coef[rows], best_intercept[rows] = (c, i) if ours <= theirs else (c0, i0)
        worst = max(worst, min(ours, theirs))
        objective.append(value(*here, best_coef[rows], best_intercept[rows], l1, l2))
    scale = max(1.0, float(np.abs(y).max()) if kind in ("linear", "poisson") else 1.0)
    assert worst < 1e-10 * scale, f"{name}: gradient {worst:.1e} is not zero"

    def measured(part):
        _, r, t, m = load(file, part)
        t = np.searchsorted(classes, t) if classes is not None else t.astype("f8")
        s = standard(r) @ best_coef.T + best_intercept + (m[offset].astype("f8")[:, None] if offset else 0)
        return metrics(kind, s, t, m[weight].astype("f8") if weight else np.ones(len(t)), k)

    out = {
        "data": file, "group": group, "test_group": test, "kind": kind,
        "settings": {"l1": l1, "l2": l2, "weight": weight, "class_weight": class_weight, "offset": offset},
        "made_with": what, "rows": n, "features": names,
        "classes": None if classes is None else classes.tolist(),
        "means": standard.mean.tolist(), "scales": standard.scale.tolist(),
        "coefficients": best_coef.tolist(), "intercepts": best_intercept.tolist(),
        "objective": objective if one_vs_rest else objective[0], "gradient": worst,
        "metrics": measured(group), "test_metrics": measured(test) if test else None,
    }
    path = OUT / f"{name}.json"
    text = json.dumps(out, indent=1, allow_nan=False)
    # One array of numbers a line: easier to read and half the size.
    for key in ("means", "scales", "intercepts", "features"):
        text = text.replace(json.dumps(out[key], indent=1).replace("\n", "\n "), json.dumps(out[key]))
    rows_text = "[\n" + ",\n".join("  " + json.dumps(r) for r in out["coefficients"]) + "\n ]"
    text = text.replace(json.dumps(out["coefficients"], indent=1).replace("\n", "\n "), rows_text)
    assert json.loads(text) == out
    path.write_text(text + "\n")
    assert path.stat().st_size < 200_000
    print(f"{path.name}: gradient {worst:.1e}, objective {np.round(out['objective'], 6)}, {out['metrics']}")


# ---- the other programs ------------------------------------------------------------------------------------------------

def fitted(model, **kw):
    def peer(x, y, w, _offset):
        model.fit(x, y, **({"sample_weight": w} if kw.get("weighted") else {}))
        return model.coef_, model.intercept_, f"scikit-learn {sklearn.__version__} {model!r}".replace("\n", " ")
    return peer


def by_rows(make):
    """scikit-learn's C and alpha depend on the number of rows (and the sum of weights): build the model when they are known."""
    def peer(x, y, w, offset):
        return fitted(make(float(w.sum())), weighted=bool((w != 1).any()))(x, y, w, offset)
    return peer


def logistic_peer(l1, l2):
    def make(total):
        strength = l1 + l2
        return lm.LogisticRegression(C=1 / (total * strength), l1_ratio=l1 / strength, solver="saga" if l1 else "newton-cg",
                                     tol=1e-12 if l1 else 1e-11, max_iter=200_000, random_state=0)
    return by_rows(make)


def svm_peer(l2):
    """L-BFGS-B of scipy on the exact objective: LinearSVC regularises the intercept, so it minimises something else."""
    def peer(x, y, w, _offset):
        coefs, intercepts = [], []
        for target in ([y] if y.max() == 1 else [(y == c).astype(int) for c in range(y.max() + 1)]):
            sign = 2.0 * target - 1

            def f(p):
                gap = np.maximum(0, 1 - sign * (x @ p[:-1] + p[-1]))
                g = -2 * w * sign * gap / w.sum()
                return (w * gap ** 2).sum() / w.sum() + l2 / 2 * p[:-1] @ p[:-1], np.append(x.T @ g + l2 * p[:-1], g.sum())

            p = np.zeros(x.shape[1] + 1)
            for _ in range(5):  # restarts: the line search gives up near the last digits
                p = scipy.optimize.minimize(f, p, jac=True, method="L-BFGS-B",
                                            options=dict(maxiter=100_000, maxfun=1_000_000, ftol=0, gtol=1e-13, maxcor=50)).x
            coefs.append(p[:-1])
            intercepts.append(p[-1])
        return np.array(coefs), np.array(intercepts), f"scipy {scipy.__version__} L-BFGS-B on the exact objective"
    return peer


def poisson_rate_peer(l2):
    """statsmodels GLM with an offset. Its elastic net also spares no intercept, so the penalty is given per column."""
    def peer(x, y, w, offset):
        xi = sm_api.add_constant(x, has_constant="add")
        if l2 == 0:
            r = sm_api.GLM(y, xi, family=sm_api.families.Poisson(), offset=offset).fit(tol=1e-14, maxiter=200)
            return r.params[1:], r.params[0], f"statsmodels {statsmodels.__version__} GLM(Poisson, offset)"
        # Same trick as everywhere for a rate: y / exposure, weighted by exposure, is the same likelihood up to a constant
        # and the factor sum(w) / n, which the penalty has to follow.
        e = np.exp(offset)
        m = lm.PoissonRegressor(alpha=l2 * len(y) / e.sum(), tol=1e-12, max_iter=10_000, solver="newton-cholesky")
        m.fit(x, y / e, sample_weight=e)
        return m.coef_, m.intercept_, f"scikit-learn {sklearn.__version__} {m!r} on y / exposure, weighted by exposure"
    return peer


warnings.simplefilter("error", sklearn.exceptions.ConvergenceWarning)

ridge = lambda l2: by_rows(lambda total: lm.Ridge(alpha=total * l2, solver="cholesky", tol=1e-12))
elastic = lambda l1, l2: fitted(lm.ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), tol=1e-14, max_iter=1_000_000))
lasso = lambda l1: fitted(lm.Lasso(alpha=l1, tol=1e-14, max_iter=1_000_000))
rate = lambda l2: by_rows(lambda total: lm.PoissonRegressor(alpha=l2, tol=1e-12, max_iter=10_000, solver="newton-cholesky"))

reference("linear_ridge_casp", "linear", "casp.h5", ridge(L2), l2=L2)
reference("linear_lasso_casp", "linear", "casp.h5", lasso(0.05), l1=0.05)
reference("linear_elastic_casp", "linear", "casp.h5", elastic(0.02, 0.01), l1=0.02, l2=0.01)
reference("linear_plain_diabetes", "linear", "diabetes.h5", fitted(lm.LinearRegression()))
reference("linear_ridge_diabetes", "linear", "diabetes.h5", ridge(L2), l2=L2)
reference("linear_lasso_diabetes", "linear", "diabetes.h5", lasso(2.0), l1=2.0)
reference("linear_elastic_diabetes", "linear", "diabetes.h5", elastic(1.0, 0.1), l1=1.0, l2=0.1)

reference("logistic_l2_breast_cancer", "logistic", "breast_cancer.h5", logistic_peer(0, L2), l2=L2)
reference("logistic_l1_breast_cancer", "logistic", "breast_cancer.h5", logistic_peer(0.01, 0), l1=0.01)
reference("logistic_elastic_breast_cancer", "logistic", "breast_cancer.h5", logistic_peer(0.005, 0.005), l1=0.005, l2=0.005)
reference("logistic_weighted_breast_cancer", "logistic", "breast_cancer.h5", logistic_peer(0, L2), l2=L2, weight="row_weight")
reference("logistic_balanced_breast_cancer", "logistic", "breast_cancer.h5", logistic_peer(0, L2), l2=L2, class_weight="balanced")
reference("softmax_l2_digits", "logistic", "digits.h5", logistic_peer(0, L2), l2=L2, group="train", test="test")

reference("svm_breast_cancer", "svm", "breast_cancer.h5", svm_peer(L2), l2=L2, close=1e-5)
reference("svm_digits", "svm", "digits.h5", svm_peer(L2), l2=L2, group="train", test="test", close=1e-5)

reference("poisson_l2_counts", "poisson", "counts.h5", rate(L2), l2=L2, group="years")
reference("poisson_strong_counts", "poisson", "counts.h5", rate(0.1), l2=0.1, group="years")
reference("poisson_offset_counts", "poisson", "counts.h5", poisson_rate_peer(L2), l2=L2, group="groups", offset="offset")
reference("poisson_plain_offset_counts", "poisson", "counts.h5", poisson_rate_peer(0), group="groups", offset="offset")
