"""Training on a table eight times as large as --max-memory beside the same in memory: seconds of a pass, the share of the time that
threads read and decode, and the rate of the rows beside that of reading and decoding them alone. One JSON line a case.

usage: streamed.py CONSORT READER [FOLDER]
CONSORT: the program; READER: what `cargo bench --bench reader --no-run` names; FOLDER for the tables and the scratch (default: a
temporary one). Python needs numpy and h5py.

2,400,000 x 28 float32 (269 MB, logistic) against --max-memory 32M, 2 threads, in the page cache; medians of RUNS in turn. `rate` is
bytes of rows over the seconds of training; `reading_alone` what READER makes of the same dataset with 2 threads: it does nothing
else with the cores, so that a pass of t seconds of arithmetic and r of decoding has at most r / (r + t) of that rate. `pass_over_both`
is the streamed iteration over t + r: the median iteration in memory, and reading alone as often as an iteration passes over the rows
(newton: twice). Threads that read for themselves do not
wait for one another, so `reading` is not time lost: it is what decoding costs.
"""
import json, os, statistics, subprocess, sys, tempfile
import h5py, numpy as np

consort, reader = sys.argv[1:3]
folder = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()
N, D, RUNS = 2_400_000, 28, 3


def write(path, **options):
    random = np.random.default_rng(7)
    with h5py.File(path, "w") as file:
        x = file.create_dataset("X", (N, D), "f4", **options)
        y = file.create_dataset("y", (N,), "u1")
        weights = random.normal(size=D)
        for first in range(0, N, 100_000):
            rows = random.normal(size=(100_000, D)).astype("f4")
            x[first:first + 100_000] = rows
            y[first:first + 100_000] = rows @ weights + random.logistic(size=100_000) > 0


def train(path, *flags):
    words = [consort, "train", "logistic", path, "-o", os.path.join(folder, "model.h5"), "--force", "--json", "--threads", "2"]
    out = subprocess.run(words + list(flags), check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def median(of, values):
    return statistics.median(of(value) for value in values)


tables = [("contiguous", {}), ("shuffle+deflate 1", {"chunks": (8192, D), "shuffle": True, "compression": 1}),
          ("deflate 6", {"chunks": (8192, D), "compression": 6})]
solvers = [("lbfgs", ["--max-iterations", "6"], []), ("newton", ["--solver", "newton", "--max-iterations", "2"], []),
           ("sgd", ["--solver", "sgd", "--epochs", "2"], ["--scratch", folder]),
           ("adam", ["--solver", "adam", "--epochs", "2"], ["--scratch", folder])]
for name, options in tables:
    path = os.path.join(folder, "table.h5")
    write(path, **options)
    for solver, words, more in solvers:
        memory, disk, alone = [], [], []
        for _ in range(RUNS):
            memory.append(train(path, *words))
            disk.append(train(path, *words, "--max-memory", "32M", *more))
            line = subprocess.run([reader, path, "X"], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            alone.append(json.loads(line)["consort_2_threads"])
        assert len({run["digest"] for run in memory + disk}) == 1, "other bits"
        rate = median(lambda run: run["streamed"]["rows"] * D * 4 / 1e6 / run["train_s"], disk)
        passed, in_memory = (median(lambda run: run["epoch_s"], runs) for runs in (disk, memory))
        reading = (2 if solver == "newton" else 1) * N * D * 4 / 1e6 / statistics.median(alone)
        print(json.dumps({
            "bench": "streamed.py", "case": f"{name}, {solver}", "in_memory_s": round(median(lambda run: run["train_s"], memory), 3),
            "streamed_s": round(median(lambda run: run["train_s"], disk), 3), "rate_mb_s": round(rate),
            "reading_alone_mb_s": round(statistics.median(alone)), "over_reading_alone": round(rate / statistics.median(alone), 2),
            "pass_s": round(passed, 3), "pass_in_memory_s": round(in_memory, 3), "reading_alone_s": round(reading, 3),
            "pass_over_both": round(passed / (in_memory + reading), 2),
            "reading": round(median(lambda run: run["streamed"]["read_s"] / run["train_s"], disk), 2),
            "peak_mb": round(median(lambda run: run["peak_memory_bytes"] / 1e6, disk))}), flush=True)
    os.remove(path)
