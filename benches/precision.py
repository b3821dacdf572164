"""Networks whose products multiply float32 and bfloat16 (--precision), in turn: one JSON line a run, then ratios and means.

usage: precision.py CONSORT IMAGES.h5 [RUNS [SEEDS]]     IMAGES.h5: as for network.py
Times: median epoch of three (784-512-512-10, batches of 256) and one epoch (784-2048-2048-10, batches of 1024), one process of two threads, SGD with momentum.
Accuracy on the rows of test: 784-128-10, 6 epochs of batches of 256, as in gradient_bits.py. Fair: same rows, order, starting weights for each seed.
"""
import json, os, statistics, subprocess, sys, tempfile

CASES = {"784-512-512-10": ("512,512", "256", "3"), "784-2048-2048-10": ("2048,2048", "1024", "1")}


def last_line(words):
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout.splitlines()[-1])


def main(binary, images, runs="3", seeds="3"):
    with tempfile.TemporaryDirectory() as folder:
        model, times, accuracies = os.path.join(folder, "model.h5"), {}, {}
        train = [binary, "train", "mlp", images, "--group", "train", "--solver", "sgd", "--learning-rate", "0.05", "-o", model, "--force", "--json"]
        for case, (layers, batch, epochs) in CASES.items():
            for run in range(int(runs)):
                for precision in ("f32", "bf16"):
                    done = last_line([*train, "--layers", layers, "--global-batch", batch, "--epochs", epochs, "--tolerance", "0", "--threads", "2", "--precision", precision])
                    print(json.dumps({"bench": "precision", "case": case, "precision": precision, "run": run, "epoch_s": done["epoch_s"], "digest": done["digest"][:16]}), flush=True)
                    times.setdefault((case, precision), []).append(done["epoch_s"])
            median = {precision: statistics.median(times[case, precision]) for precision in ("f32", "bf16")}
            print(json.dumps({"bench": "precision", "case": case, "median_s": median, "ratio": round(median["bf16"] / median["f32"], 3)}), flush=True)
        for precision in ("f32", "bf16"):
            for seed in range(1, int(seeds) + 1):
                last_line([*train, "--layers", "128", "--epochs", "6", "--seed", str(seed), "--precision", precision])
                accuracies.setdefault(precision, []).append(last_line([binary, "evaluate", model, images, "--group", "test", "--json"])["accuracy"])
            print(json.dumps({"bench": "precision", "precision": precision, "accuracy": accuracies[precision], "mean": round(statistics.mean(accuracies[precision]), 4)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
