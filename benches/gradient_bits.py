"""Bytes and accuracy of networks whose gradients travel in 32, 16 and 8 bits, or whose lanes meet every 8 steps: one JSON line a run, then one a way.

usage: gradient_bits.py CONSORT IMAGES.h5 [SEEDS]     IMAGES.h5: as for network.py
A 784-128-10 network, SGD with momentum, 6 epochs of batches of 256, two lanes; accuracy on the rows of test. Bytes are those that one of two ranks
gives to all-reduces in an epoch, beside which the peaks of groups travel. Fair: same rows, order, starting weights for each seed.
"""
import json, os, statistics, subprocess, sys, tempfile


def last_line(words):
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout.splitlines()[-1])


def main(binary, images, seeds="5"):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.h5")
        for way in ({"bits": 32}, {"bits": 16}, {"bits": 8}, {"bits": 32, "sync_every": 8}):
            words = ["--gradient-bits", str(way["bits"])] + (["--sync-every", str(way["sync_every"])] if "sync_every" in way else [])
            train = [binary, "train", "mlp", images, "--group", "train", "--layers", "128", "--solver", "sgd", "--learning-rate", "0.05",
                     *words, "-o", model, "--force", "--json"]
            accuracies = []
            for seed in range(1, int(seeds) + 1):
                done = last_line([*train, "--epochs", "6", "--seed", str(seed)])
                told = last_line([binary, "evaluate", model, images, "--group", "test", "--json"])
                accuracies.append(told["accuracy"])
                print(json.dumps({"bench": "gradient_bits", **way, "seed": seed, "accuracy": told["accuracy"], "digest": done["digest"][:16]}), flush=True)
            sent = last_line(["mpirun", "-n", "2", "--bind-to", "none", *train, "--epochs", "1", "--threads", "1"])["traffic"]["all_reduce"]["bytes"]
            print(json.dumps({"bench": "gradient_bits", **way, "accuracy_mean": round(statistics.mean(accuracies), 4),
                              "accuracy_deviation": round(statistics.pstdev(accuracies), 4), "all_reduce_bytes_epoch": sent}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
