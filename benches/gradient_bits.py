"""Bytes and accuracy of networks of whose gradients less travels: in 16 and 8 bits, the largest numbers, thin matrices, or lanes that meet every 8 steps.

usage: gradient_bits.py CONSORT IMAGES.h5 [SEEDS]     IMAGES.h5: as for network.py

One JSON line a run, then one a way: {"bench","way","accuracy_mean","accuracy_deviation","bytes_epoch","of_kinds"}. A 784-128-10 network, SGD with
momentum, 6 epochs of batches of 256, two lanes; accuracy on the rows of test. `bytes_epoch`: what one of two ranks gives to all collectives in an
epoch (peaks of groups, losses and weights of steps too), `of_kinds` to each kind of them; what is done once (opening the table, moments, the model) is not
counted: it is the difference between three epochs and one, halved. Between two ranks a rank sends what it gives. Fair: same rows, order, starting weights for
each seed; learning rate and momentum are those that 32 bits are good at, for all.
"""
import json, os, statistics, subprocess, sys, tempfile

WAYS = {
    "32 bits": [],
    "16 bits": ["--gradient-bits", "16"],
    "8 bits": ["--gradient-bits", "8"],
    "top-k 1 %": ["--top-k", "0.01"],
    "PowerSGD, rank 4": ["--powersgd", "4"],
    "every 8 steps": ["--sync-every", "8"],
}


def last_line(words):
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout.splitlines()[-1])


def given(train, epochs):
    """What a rank of two gives to each kind of collective."""
    done = last_line(["mpirun", "-n", "2", "--bind-to", "none", *train, "--epochs", str(epochs), "--threads", "1"])
    return {kind: of["bytes"] for kind, of in done["traffic"].items()}


def main(binary, images, seeds="5"):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.h5")
        for way, words in WAYS.items():
            train = [binary, "train", "mlp", images, "--group", "train", "--layers", "128", "--solver", "sgd", "--learning-rate", "0.05",
                     *words, "-o", model, "--force", "--json"]
            accuracies = []
            for seed in range(1, int(seeds) + 1):
                done = last_line([*train, "--epochs", "6", "--seed", str(seed)])
                told = last_line([binary, "evaluate", model, images, "--group", "test", "--json"])
                accuracies.append(told["accuracy"])
                print(json.dumps({"bench": "gradient_bits", "way": way, "seed": seed, "accuracy": told["accuracy"], "digest": done["digest"][:16]}), flush=True)
            one, three = given(train, 1), given(train, 3)
            of_kinds = {kind: (three[kind] - one[kind]) // 2 for kind in three if three[kind] > one[kind] + 1}
            print(json.dumps({"bench": "gradient_bits", "way": way, "accuracy_mean": round(statistics.mean(accuracies), 4),
                              "accuracy_deviation": round(statistics.pstdev(accuracies), 4), "bytes_epoch": sum(of_kinds.values()),
                              "of_kinds": of_kinds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
