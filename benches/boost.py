"""Boosted trees, Consort and LightGBM in turn: one JSON line a run, then medians and ratios.

usage: boost.py CONSORT [FOLDER [RUNS]]     CONSORT: the release binary; FOLDER for the tables (default: a temporary one)
Python needs numpy, h5py, scikit-learn, lightgbm; mpirun for the runs with two processes.

Tables: table.h5, two classes, 1,000,000 x 28 float32 to train on, physics-like; multi.h5, seven classes, 500,000 x 54; a fifth as many
rows to test on. Settings of both: 255 leaves, 255 bins, shrinkage 0.1, 20 rows a leaf; 100 rounds (multi.h5: 20). Two threads, or two
processes of one thread (LightGBM: tree_learner=data over sockets on this machine). Seconds are those of training from a table in memory,
binning included: `train_s` of Consort; Dataset and train of LightGBM. Prediction: `score_s` of `predict`, and the call of `predict`.
Fair: same rows, same settings, quality of the same test rows beside. Unfair to Consort: LightGBM samples 200,000 rows for bins as
Consort does, but from rows in memory; Consort's bin numbers come from a second pass over the file, whose decoding is not counted.
"""
import json, os, socket, statistics, subprocess, sys, tempfile, time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "2"
import h5py
import lightgbm
from sklearn.metrics import log_loss, roc_auc_score

from tables import make, make_multi, make_table

SETTINGS = dict(num_leaves=255, learning_rate=0.1, max_bin=255, min_data_in_leaf=20, verbose=-1)
CASES = {"table": dict(objective="binary", rounds=100), "multi": dict(objective="multiclass", num_class=7, rounds=20)}


def quality(y, p):
    return {"log_loss": float(log_loss(y, p))} | ({"auc": float(roc_auc_score(y, p))} if p.ndim == 1 else {})


def run_consort(consort, folder, case, processes):
    path, model, predictions = (os.path.join(folder, name) for name in (f"{case}.h5", "boost-model.h5", "boost-predictions.h5"))
    launch = ["mpirun", "-n", "2", "--bind-to", "none"] if processes == 2 else []
    words = ["train", "boost", path, "--group", "train", "--loss", "logistic", "--max-leaves", "255", "--rounds",
             str(CASES[case]["rounds"]), "--threads", str(2 // processes), "-o", model, "--json", "--force"]
    done = json.loads(subprocess.run([*launch, consort, *words], check=True, capture_output=True).stdout.splitlines()[-1])
    found = {"train_s": done["train_s"], "peak_mb": done["peak_memory_bytes"] >> 20, "bytes_sent": sum(
        kind.get("bytes", 0) for kind in done["traffic"].values() if isinstance(kind, dict))}
    if processes == 1:
        words = ["predict", model, path, "--group", "test", "-o", predictions, "--threads", "2", "--json", "--force"]
        told = json.loads(subprocess.run([consort, *words], check=True, capture_output=True).stdout.splitlines()[-1])
        found["predict_s"] = told["score_s"]
        with h5py.File(predictions) as file, h5py.File(path) as table:
            p = file["probability"][...]
            found |= quality(table["test/y"][...], p[:, 1] if p.shape[1] == 2 else p)
    return found


def run_lightgbm(folder, case, processes, rank, ports):
    rounds, settings = CASES[case]["rounds"], SETTINGS | {k: v for k, v in CASES[case].items() if k != "rounds"}
    with h5py.File(os.path.join(folder, f"{case}.h5")) as file:
        n = file["train/X"].shape[0]
        rows = slice(n * rank // processes, n * (rank + 1) // processes)
        x, y, xt, yt = file["train/X"][rows], file["train/y"][rows], file["test/X"][...], file["test/y"][...]
    settings["num_threads"] = 2 // processes
    if processes == 2:
        settings |= dict(tree_learner="data", pre_partition=True, num_machines=2, time_out=2,
                         machines=",".join(f"127.0.0.1:{port}" for port in ports), local_listen_port=ports[rank])
    began = time.perf_counter()
    model = lightgbm.train(settings, lightgbm.Dataset(x, y, params=settings), rounds)
    found = {"train_s": time.perf_counter() - began}
    if processes == 1:
        began = time.perf_counter()
        p = model.predict(xt, num_threads=2)
        found |= {"predict_s": time.perf_counter() - began} | quality(yt, p)
    return found


def main():
    consort = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    for case, table, n in ("table", make_table, 1_000_000), ("multi", make_multi, 500_000):
        if not os.path.exists(os.path.join(folder, f"{case}.h5")):
            make(os.path.join(folder, f"{case}.h5"), table, n)

    def apart(case, processes):
        """LightGBM in processes of its own: it keeps its sockets until one ends."""
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(processes)]
        ports = [str(one.getsockname()[1]) for one in listening]
        [one.close() for one in listening]
        words = [sys.executable, __file__, "--rank", folder, case, str(processes)]
        ranks = [subprocess.Popen([*words, str(rank), *ports], stdout=subprocess.PIPE) for rank in range(processes)]
        return json.loads([rank.communicate()[0] for rank in ranks][0].splitlines()[-1])

    for case in CASES:
        for processes in (1, 2):
            jobs = {"consort": lambda: run_consort(consort, folder, case, processes), "lightgbm": lambda: apart(case, processes)}
            told = {who: [] for who in jobs}
            for run in range(runs):
                for who, job in jobs.items():
                    found = job()
                    told[who].append(found)
                    shown = {key: round(value, 5) for key, value in found.items()}
                    print(json.dumps({"bench": "boost", "case": case, "processes": processes, "who": who, "run": run} | shown), flush=True)
            seconds = lambda who, name: statistics.median(found[name] for found in told[who])
            names = ["train_s"] + (["predict_s"] if processes == 1 else [])
            ratios = {f"{name}_over_lightgbm": round(seconds("consort", name) / seconds("lightgbm", name), 3) for name in names}
            medians = {f"{who}_{name}": round(seconds(who, name), 4) for who in jobs for name in names}
            print(json.dumps({"bench": "boost", "case": case, "processes": processes} | medians | ratios), flush=True)


if sys.argv[1] == "--rank":
    print(json.dumps(run_lightgbm(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:6]), [int(port) for port in sys.argv[6:]])))
else:
    main()
