"""Reading one dataset into memory, Consort beside h5py in turn: MB/s (decoded) by filter and chunk shape, one JSON line a case.

usage: reader.py READER [FOLDER [FILE DATASET]]
READER: the program that `cargo bench --bench reader --no-run` names. FOLDER for the tables (default: a temporary one); FILE and
DATASET: one of yours instead. Python needs numpy, h5py, and hdf5plugin for filters beside deflate and lzf.

1,000,000 x 28 standard normal float32 (112 MB). Medians of alternating runs, files in the page cache, every run into fresh memory.
h5py is given one thread whatever it is given: the HDF5 library has one lock.
"""
import json, os, statistics, subprocess, sys, tempfile, time
import h5py, numpy as np
try:
    import hdf5plugin
except ImportError:
    hdf5plugin = None
    print("SKIPPED: zstd, lz4, blosc (no hdf5plugin)", file=sys.stderr)

reader = sys.argv[1]
folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
N, D, RUNS = 1_000_000, 28, 3

cases = [("contiguous", {})]
for chunk in [(8192, D), (512, D), (65536, 7), (N, 1)]:
    cases += [(f"{chunk[0]}x{chunk[1]}, {name}", {"chunks": chunk, **options}) for name, options in
              [("none", {}), ("shuffle+deflate 1", {"compression": 1, "shuffle": True})]]
whole = {"chunks": (8192, D)}
cases += [("8192x28, deflate 6", {**whole, "compression": 6}), ("8192x28, fletcher32", {**whole, "fletcher32": True}),
          ("8192x28, shuffle+lzf", {**whole, "compression": "lzf", "shuffle": True})]
if hdf5plugin:
    cases += [("8192x28, shuffle+zstd", {**whole, "shuffle": True, "compression": hdf5plugin.Zstd(clevel=3)}),
              ("8192x28, lz4", {**whole, "compression": hdf5plugin.LZ4()}),
              ("8192x28, bitshuffle+lz4", {**whole, "compression": hdf5plugin.Bitshuffle(cname="lz4")}),
              ("8192x28, blosc lz4 shuffle", {**whole, "compression": hdf5plugin.Blosc(cname="lz4", shuffle=1)})]


def compare(name, path, dataset):
    ours, theirs = {"consort_1_thread": [], "consort_2_threads": []}, []
    mb = 0.0
    for _ in range(RUNS):
        line = json.loads(subprocess.run([reader, path, dataset], check=True, capture_output=True).stdout.splitlines()[-1])
        for key in ours:
            ours[key].append(line[key])
        for _ in range(3):
            began = time.perf_counter()
            with h5py.File(path) as f:
                values = f[dataset][...]
            theirs.append(time.perf_counter() - began)
            mb = values.nbytes / 1e6
            del values
    h5py_rate = mb / statistics.median(theirs)
    rates = {key: round(statistics.median(of)) for key, of in ours.items()}
    print(json.dumps({"bench": "reader.py", "case": name, "mb": round(mb), **rates, "h5py": round(h5py_rate),
                      "time_over_h5py": round(h5py_rate / rates["consort_2_threads"], 3)}), flush=True)


if len(sys.argv) > 4:
    compare(os.path.basename(sys.argv[3]), sys.argv[3], sys.argv[4])
else:
    x = np.random.default_rng(1).normal(size=(N, D)).astype("f4")
    for name, options in cases:
        path = os.path.join(folder, "reader.h5")
        with h5py.File(path, "w") as f:
            f.create_dataset("X", data=x, **options)
        compare(name, path, "X")
        os.remove(path)
