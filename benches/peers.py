"""Logistic regression on a wide table, Consort and its peers in turn: one JSON line a run, then medians and ratios.

usage: peers.py CONSORT [FOLDER [RUNS]]     CONSORT: the release binary; FOLDER for the table (default: a temporary one)
Python needs numpy, h5py, scikit-learn, scikit-learn-intelex; whoever is not installed is left out, saying so.

The table: 600,000 rows x 200 standard normal float32 columns, a fifth of them effective, 500,000 rows to train on.
Two threads each. Seconds are those of training from a table in memory: `train_s` of Consort (standardising included),
the call of `fit` of the peers. Fair: same rows, same penalty (C = 1), log loss of the same test rows printed beside.
Unfair to the peers: none of them standardises, which this table does not need. Unfair to Consort: it stops at a
gradient a hundred times smaller than theirs.
"""
import json, os, statistics, subprocess, sys, tempfile, time
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "2"
import h5py, numpy as np

N, TEST, D = 500_000, 100_000, 200
consort = sys.argv[1]
folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 7
table, model = os.path.join(folder, "wide.h5"), os.path.join(folder, "wide-model.h5")

if not os.path.exists(table):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N + TEST, D)).astype("f4")
    w = rng.normal(size=D) * (rng.random(D) < 0.3)
    y = (rng.random(N + TEST) < 1 / (1 + np.exp(-0.5 * (x @ w.astype("f4"))))).astype("u1")
    with h5py.File(table, "w") as f:
        for part, rows in (("train", slice(0, N)), ("test", slice(N, None))):
            f.create_dataset(f"{part}/X", data=x[rows], chunks=(8192, D))
            f.create_dataset(f"{part}/y", data=y[rows], chunks=(65536,))
with h5py.File(table) as f:
    x, y, xt, yt = (f[k][...] for k in ("train/X", "train/y", "test/X", "test/y"))


def run_consort():
    command = [consort, "train", "logistic", table, "--group", "train", "-o", model, "--threads", "2", "--l2", str(1 / N), "--json"]
    done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])
    command = [consort, "evaluate", model, table, "--group", "test", "--json"]
    loss = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])["log_loss"]
    return done["train_s"], loss, done["iterations"]


def run_peer(module):
    import importlib
    from sklearn.metrics import log_loss
    peer = importlib.import_module(module).LogisticRegression(C=1.0, tol=1e-4, max_iter=100)
    began = time.perf_counter()
    peer.fit(x, y)
    seconds = time.perf_counter() - began
    return seconds, float(log_loss(yt, peer.predict_proba(xt))), int(np.max(peer.n_iter_))


jobs = {"consort": run_consort}
for name, module in (("oneDAL", "sklearnex.linear_model"), ("scikit-learn", "sklearn.linear_model")):
    try:
        __import__(module)
        jobs[name] = lambda module=module: run_peer(module)
    except ImportError as missing:
        print(f"SKIPPED: {name} ({missing})")

seconds = {name: [] for name in jobs}
for run in range(runs):
    for name, job in jobs.items():
        train_s, loss, iterations = job()
        seconds[name].append(train_s)
        print(json.dumps({"bench": "peers", "case": "logistic, wide.h5", "who": name, "run": run, "train_s": round(train_s, 4),
                          "log_loss": round(loss, 6), "iterations": iterations}), flush=True)
medians = {name: statistics.median(of_runs) for name, of_runs in seconds.items()}
print(json.dumps({"bench": "peers", "case": "logistic, wide.h5", "medians_s": {k: round(v, 4) for k, v in medians.items()},
                  "consort_over": {k: round(medians["consort"] / v, 3) for k, v in medians.items() if k != "consort"}}))
