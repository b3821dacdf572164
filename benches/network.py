"""Networks, Consort and PyTorch in turn: one JSON line a run, then medians and ratios.

usage: network.py CONSORT IMAGES.h5 [TABLE.h5 [RUNS [CASE...]]]     CONSORT: the release binary
IMAGES.h5: groups train and test with X (n x 28 x 28 bytes) and y, such as Fashion-MNIST by `consort convert` (see the README);
TABLE.h5: groups train and test with X (n x 28 float32) and y of two classes (default: made by tables.py). Python needs torch, numpy, h5py; mpirun for two processes.

Both: float32, SGD with momentum 0.9 at rate 0.05, standardised features, rows in memory, one epoch shuffled anew; seconds of an epoch are
the median of three. One process of two threads, and two processes of one thread (PyTorch: DistributedDataParallel over gloo).
Fair: same layers, batches, rows and processor. Unfair to Consort: its sums are exact, the same for any number of ranks. Unfair to PyTorch:
of two classes Consort has one score and PyTorch two, as people write it there.
"""
import json, os, statistics, subprocess, sys, tempfile, time

CASES = {"784-512-512-10": ("images", 256), "28-64-64-2": ("table", 1024), "784-2048-2048-10": ("images", 1024)}
EPOCHS = 3


def torch_run(path, case):
    import h5py, torch, torch.distributed as dist
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    torch.set_num_threads(2 // world)
    if world > 1:
        dist.init_process_group("gloo")
    layers, batch = [int(units) for units in case.split("-")], CASES[case][1]
    with h5py.File(path) as file:
        n = file["train/X"].shape[0]
        rows = slice(n * rank // world, n * (rank + 1) // world)
        x, y = file["train/X"][rows], torch.from_numpy(file["train/y"][rows].astype("i8"))
    x = torch.from_numpy(x.reshape(len(x), -1).astype("f4"))
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    torch.manual_seed(0)
    net = []
    for inputs, outputs in zip(layers[:-2], layers[1:-1]):
        net += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*net, torch.nn.Linear(layers[-2], layers[-1]))
    if world > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), torch.nn.CrossEntropyLoss()
    share, times = batch // world, []
    for _ in range(EPOCHS):
        if world > 1:
            dist.barrier()
        began, order = time.perf_counter(), torch.randperm(len(x))
        for step in range(n // batch):
            chosen = order[step * share:(step + 1) * share]
            loss = loss_of(model(x[chosen]), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        times.append(time.perf_counter() - began)
    if rank == 0:
        print(json.dumps({"epoch_s": statistics.median(times)}))


def consort(binary, path, case, processes, folder):
    layers = case.split("-")
    launch = ["mpirun", "-n", "2", "--bind-to", "none"] if processes == 2 else []
    words = ["train", "mlp", path, "--group", "train", "--layers", ",".join(layers[1:-1]), "--global-batch", str(CASES[case][1]), "--solver", "sgd", "--loss", "logistic",
             "--no-nesterov", "--learning-rate", "0.05", "--schedule", "constant", "--epochs", str(EPOCHS), "--tolerance", "0",
             "--threads", str(2 // processes), "-o", os.path.join(folder, "network-model.h5"), "--json", "--force"]
    done = json.loads(subprocess.run([*launch, binary, *words], check=True, capture_output=True).stdout.splitlines()[-1])
    return {"epoch_s": done["epoch_s"], "digest": done["digest"][:16], "all_reduce_bytes": done["traffic"]["all_reduce"]["bytes"]}


def torch_timed(path, case, processes):
    launch = [sys.executable]
    if processes == 2:
        launch = [os.path.join(os.path.dirname(sys.executable), "torchrun"), "--nproc_per_node", "2"]
    environment = dict(os.environ, OMP_NUM_THREADS=str(2 // processes))
    done = subprocess.run([*launch, __file__, "--torch", path, case], check=True, capture_output=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main(binary, images, table=None, runs="5", *cases):
    with tempfile.TemporaryDirectory() as folder:
        if table is None:
            from tables import make, make_table
            table = os.path.join(folder, "table.h5")
            make(table, make_table, 1_000_000)
        paths, found = {"images": images, "table": table}, {}
        for case in cases or CASES:
            path = paths[CASES[case][0]]
            for run in range(int(runs)):
                for processes in (1, 2):
                    for peer, one in (("consort", lambda: consort(binary, path, case, processes, folder)), ("torch", lambda: torch_timed(path, case, processes))):
                        line = {"bench": "network", "case": case, "peer": peer, "processes": processes, "threads": 2 // processes, "run": run, **one()}
                        print(json.dumps(line), flush=True)
                        found.setdefault((case, peer, processes), []).append(line["epoch_s"])
        median = {key: statistics.median(times) for key, times in found.items()}
        for case in cases or CASES:
            single = median[case, "torch", 1]
            print(json.dumps({"bench": "network", "case": case, "median_s": {f"{peer} x{processes}": round(median[case, peer, processes], 4) for peer in ("consort", "torch") for processes in (1, 2)},
                              "ratio_1x2": round(median[case, "consort", 1] / single, 3), "ratio_2x1": round(median[case, "consort", 2] / single, 3),
                              "ratio_to_ddp": round(median[case, "consort", 2] / median[case, "torch", 2], 3)}), flush=True)


if __name__ == "__main__":
    torch_run(*sys.argv[2:]) if sys.argv[1] == "--torch" else main(*sys.argv[1:])
