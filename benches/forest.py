"""Random forests, Consort, oneDAL and scikit-learn in turn: one JSON line a run, then medians and ratios.

usage: forest.py CONSORT [FOLDER [RUNS [PEER]]]     CONSORT: the release binary; FOLDER for the tables (default: a temporary one)
Python needs numpy, h5py, scikit-learn, scikit-learn-intelex; mpirun for the runs with two processes.

Table: table.h5, two classes, 1,000,000 x 28 float32 to train on, 200,000 to test on. Settings of all: 20 trees to purity with at least 5 rows
a leaf, 5 features a node, bootstrap. Two threads; Consort also in two processes of one thread, which neither peer can do on processors.
Seconds are those of training from a table in memory, binning included: `train_s` of Consort; the call of `fit`.
Fair: same rows, same settings, AUC of the same test rows beside. Unfair to Consort: its bin numbers come from a second pass over the
file. Unfair to the peers: scikit-learn's trees cut between any two values, Consort's between 255 bins; oneDAL has 256 bins too.
Bytes a node: of the model file, and of peak memory above the bare program (`doctor`) less that of the binned rows.
"""
import json, os, statistics, subprocess, sys, tempfile

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "2"
import h5py
from tables import make, make_table

PEER = """
import sys, time, json, h5py
from {module} import RandomForestClassifier
from sklearn.metrics import roc_auc_score
with h5py.File(sys.argv[1]) as file:
    x, y, xt, yt = (file[name][...] for name in ("train/X", "train/y", "test/X", "test/y"))
forest = RandomForestClassifier(20, min_samples_leaf=5, max_features="sqrt", n_jobs=2, random_state=int(sys.argv[2]))
began = time.perf_counter()
forest.fit(x, y)
seconds = time.perf_counter() - began
print(json.dumps({{"train_s": seconds, "auc": float(roc_auc_score(yt, forest.predict_proba(xt)[:, 1]))}}))
"""
MODULES = {"onedal": "sklearnex.ensemble", "sklearn": "sklearn.ensemble"}


def last_line(words):
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def run_consort(consort, folder, processes, run):
    path, model = (os.path.join(folder, name) for name in ("table.h5", "forest-model.h5"))
    launch = ["mpirun", "-n", "2", "--bind-to", "none"] if processes == 2 else []
    words = ["train", "forest", path, "--group", "train", "--trees", "20", "--min-rows", "5", "--threads", str(2 // processes),
             "--seed", str(run), "-o", model, "--json", "--force"]
    done = last_line([*launch, consort, *words])
    with h5py.File(model) as file:
        nodes = file["params/node_value"].shape[0]
    metrics = json.loads(subprocess.run([consort, "evaluate", model, path, "--group", "test", "--json"], check=True,
                                        capture_output=True, text=True).stdout.splitlines()[-1])
    return {"train_s": done["train_s"], "auc": metrics["auc"], "peak_mb": done["peak_memory_bytes"] >> 20, "nodes": nodes,
            "file_bytes_a_node": os.path.getsize(model) / nodes, "bytes_sent": sum(
                kind.get("bytes", 0) for kind in done["traffic"].values() if isinstance(kind, dict))}


def main():
    consort = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    peer = sys.argv[4] if len(sys.argv) > 4 else "onedal"
    table = os.path.join(folder, "table.h5")
    if not os.path.exists(table):
        make(table, make_table, 1_000_000)
    jobs = {"consort": lambda run: run_consort(consort, folder, 1, run), "consort 2 ranks": lambda run: run_consort(consort, folder, 2, run),
            peer: lambda run: last_line([sys.executable, "-c", PEER.format(module=MODULES[peer]), table, str(run)])}
    told = {who: [] for who in jobs}
    for run in range(runs):
        for who, job in jobs.items():
            found = job(run)
            told[who].append(found)
            print(json.dumps({"bench": "forest", "who": who, "run": run} | {k: round(v, 5) for k, v in found.items()}), flush=True)
    median = lambda who, name: statistics.median(found[name] for found in told[who])
    print(json.dumps({"bench": "forest", "peer": peer} | {f"{who}_{name}": round(median(who, name), 5) for who in jobs for name in ("train_s", "auc")}
                     | {f"{who}_over_{peer}": round(median(who, "train_s") / median(peer, "train_s"), 3) for who in jobs if who != peer}))


main()
