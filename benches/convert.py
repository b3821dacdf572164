"""`consort convert` of a CSV, and `repack` of what comes of it, on ranks x threads: seconds with the start of all processes, MB of the
input a second, and the speed over that of 1 x 1. One JSON line a case; the bytes of all outputs must be the same.

usage: convert.py CONSORT [FOLDER [RUNS]]
CONSORT: the program; FOLDER for the table (default: a temporary one). Python needs numpy; mpirun or ${CONSORT_MPIEXEC}.

500,000 rows: 20 columns of normal numbers of 7 digits, one of 30 strings, a label (106 MB), in the page cache; medians of RUNS (5) in
turn. Cores are not bound. A rank that waits looks for messages all the time: with fewer free cores than ranks x threads, more ranks
are slower.
"""
import hashlib, json, os, shlex, statistics, subprocess, sys, tempfile, time
import numpy as np

consort = os.path.abspath(sys.argv[1])
folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
N, D = 500_000, 20
table, repacked = os.path.join(folder, "table.csv"), os.path.join(folder, "table.h5")


def write():
    random = np.random.default_rng(1)
    with open(table, "w") as file:
        file.write(",".join(f"f{j}" for j in range(D)) + ",site,label\n")
        line = ",".join(["%.7g"] * D) + ",site %d,%d\n"
        for _ in range(N // 10_000):
            x, site = random.normal(size=(10_000, D)), random.integers(0, 30, 10_000)
            label = x[:, 0] + random.logistic(size=10_000) > 0
            file.writelines(line % (*row, *rest) for row, rest in zip(x, zip(site, label)))


def run(ranks, threads, words):
    launch = shlex.split(os.environ.get("CONSORT_MPIEXEC", "mpirun --bind-to none")) + ["-n", str(ranks)] if ranks > 1 else []
    out = os.path.join(folder, "out.h5")
    began = time.monotonic()
    subprocess.run(launch + [consort, *words, out, "--force", "--threads", str(threads)], check=True, capture_output=True)
    seconds = time.monotonic() - began
    with open(out, "rb") as file:
        digest = hashlib.blake2b(file.read()).hexdigest()
    return seconds, digest


if not os.path.exists(table):
    write()
subprocess.run([consort, "convert", table, repacked, "--force"], check=True, capture_output=True)
sizes = [(1, 1), (1, 2), (2, 1)]
for words in (["convert", table], ["repack", repacked]):
    took, digests = {size: [] for size in sizes}, set()
    for _ in range(runs):
        for size in sizes:
            seconds, digest = run(*size, words)
            took[size].append(seconds)
            digests.add(digest)
    assert len(digests) == 1, "other bytes"
    alone = statistics.median(took[1, 1])
    for ranks, threads in sizes:
        seconds = statistics.median(took[ranks, threads])
        print(json.dumps({
            "bench": "convert.py", "case": f"{words[0]}, {ranks} x {threads}", "seconds": round(seconds, 3),
            "least": round(min(took[ranks, threads]), 3), "mb_s": round(os.path.getsize(words[1]) / 1e6 / seconds),
            "over_one": round(alone / seconds, 2)}), flush=True)
