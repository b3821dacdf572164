"""What checkpoints cost: the same training without them, at the default interval and every half second, in turn. One JSON line a run, then medians.

usage: checkpoint.py CONSORT [FOLDER [RUNS]]     CONSORT: the release binary; FOLDER for table.h5 and the checkpoints (default: a
temporary one). Python needs numpy and h5py to make the table; mpirun for the runs with two processes.

table.h5, two classes, 1,000,000 x 28 float32. `train_s` of Consort: from the table in memory to the model; `cpu_s`: user and system of all
its processes, reading included. A run is compared with the one without checkpoints just before or after it; the order turns from run to run.
Unfair to checkpoints: a training of some seconds is far too short to want them. With `--every 0.5s` at most a fiftieth of the time goes into
them, since the interval adapts; `written` counts them. Default: every five minutes, so that only looking at the clock costs.
"""
import json, os, resource, shutil, statistics, subprocess, sys, tempfile

CASES = {
    "boost": ["boost", "--rounds", "60", "--max-leaves", "255"],
    "logistic lbfgs": ["logistic", "--solver", "lbfgs", "--tolerance", "0", "--max-iterations", "150"],
    "logistic adam": ["logistic", "--solver", "adam", "--epochs", "8"],
}
KEEP = {"none": [], "default": ["--checkpoint"], "often": ["--checkpoint", "--every", "0.5s"]}


def run(consort, folder, processes, words, keep):
    kept, model = (os.path.join(folder, name) for name in ("checkpoint-kept", "checkpoint-model.h5"))
    shutil.rmtree(kept, ignore_errors=True)
    launch = ["mpirun", "-n", "2", "--bind-to", "none"] if processes == 2 else []
    keep = [keep[0], kept, *keep[1:], "--keep", "1000"] if keep else []
    words = ["train", words[0], os.path.join(folder, "table.h5"), "--group", "train", *words[1:], "--threads", str(2 // processes),
             "-o", model, "--json", "--force", *keep]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = json.loads(subprocess.run([*launch, consort, *words], check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    steps = [name for name in os.listdir(kept) if name.startswith("step-")] if keep else []
    size = sum(os.path.getsize(os.path.join(kept, step, name)) for step in steps for name in os.listdir(os.path.join(kept, step)))
    return {"train_s": done["train_s"], "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "written": len(steps), "mb_each": size / max(len(steps), 1) / 1e6, "digest": done["digest"]}


def main():
    consort = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    if not os.path.exists(os.path.join(folder, "table.h5")):
        from tables import make, make_table
        make(os.path.join(folder, "table.h5"), make_table, 1_000_000)
    for name, words in CASES.items():
        for processes in (1, 2):
            told = {keep: [] for keep in KEEP}
            for turn in range(runs):
                order = list(KEEP) if turn % 2 == 0 else list(KEEP)[::-1]
                for keep in order:
                    found = run(consort, folder, processes, words, KEEP[keep])
                    told[keep].append(found)
            assert len({found["digest"] for of in told.values() for found in of}) == 1, "other bits"
            line = {"bench": "checkpoint", "case": name, "processes": processes, "runs": runs}
            for keep, of in told.items():
                line[f"{keep}_s"] = round(statistics.median(found["train_s"] for found in of), 3)
                if keep != "none":
                    for what in ("train_s", "cpu_s"):
                        ratios = [found[what] / bare[what] for found, bare in zip(of, told["none"])]
                        line[f"{keep}_{what}_over_none"] = round(statistics.median(ratios), 4)
                    line[f"{keep}_written"] = statistics.median(found["written"] for found in of)
                    line[f"{keep}_mb_each"] = round(max(found["mb_each"] for found in of), 2)
            print(json.dumps(line), flush=True)


main()
