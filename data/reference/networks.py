#!/usr/bin/env python3
"""Writes networks.h5: small networks as PyTorch trains them, step by step. Not needed to build or to test: the file is committed.

usage: networks.py [OUT_DIR]          default: the folder of this script

Made with Python 3.11, torch 2.15.0, numpy 2.4.6 and h5py 3.16.0 (`pip install torch numpy h5py`), on the processor, one thread, float32
throughout; 10 s. Values are seeded, but another version of torch or another processor may differ in the last bits.

The file:

  table/x (120, 7) float32, standard normal; table/class (120,) 0 to 2; table/target (120,) float32, about -3 to 3; table/count (120,)
  0 and more; table/positive (120,) 0 or 1
  images/x (60, 8, 8, 1) float32 (image, row, column, channel); images/class (60,) 0 to 2
  <net>/                                      one group a net, with the attributes
      loss, target      what the loss is of which column; its mean over the rows of a batch, every row with weight 1:
                        softmax   -ln softmax(s)[class]                 logistic  ln(1 + exp(s)) - y s
                        squared   1/2 (s - y)^2                         huber     1/2 r^2 to |r| = delta, then delta (|r| - delta/2); r = s - y
                        poisson   exp(s) - y s                          quantile  max(alpha r, (alpha - 1) r); r = y - s
                        gaussian  1/2 (ln v + (y - m)^2/v), v = 1e-6 + exp(t); scores are m and t, in this order
      layers            what the rows go through, in order, as text
      optimizer         and its settings, as text
  <net>/batches (20, 24) or (20, 12)          rows of each step, in order; each fifth step begins a new pass over all rows
  <net>/losses (20,)                          mean loss of each step's batch, before that step's change
  <net>/start, <net>/end (n_params,)          parameters before the first and after the last step, tensor after tensor
  <net>/layout                                the tensors in that order: torch's name, then the shape, as "0.weight 16 7"
  batch_norm/running, running_layout          what its moving mean and variance are after the last step, likewise

Tensors as torch stores them: a dense weight is (outputs, inputs), y = W x + b; a convolution's is (channels out, channels in, 3, 3), and
what is multiplied with the image is not mirrored. Before the dense layers the values of an image are in the order (channel, row, column):
the first dense weight of `convolution` has its inputs in that order. Norms: weight gamma, bias beta. Batch norm: mean and variance (divided
by n) of the batch, eps 1e-5; running_mean and running_var (from 0 and 1) move 0.1 of the way in a step, to the variance divided by n - 1.
"""
import pathlib
import sys

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
TEXT = h5py.string_dtype("utf-8")
STEPS = 20
LEAST_VARIANCE = 1e-6
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def make_table(random):
    """Features and four kinds of target, which depend on them."""
    x = random.standard_normal((120, 7)).astype("f4")
    signal = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] - 0.5 * x[:, 3]
    return {
        "x": x,
        "class": np.digitize(signal + 0.3 * random.standard_normal(120), [-0.6, 0.6]).astype("u1"),
        "target": (signal + 0.2 * random.standard_normal(120)).astype("f4"),
        "count": random.poisson(np.exp(0.5 * signal)).astype("u1"),
        "positive": (signal + 0.3 * random.standard_normal(120) > 0).astype("u1"),
    }


def make_images(random):
    """Bars: across, upright or none, in noise."""
    kind = random.integers(0, 3, 60)
    x = 0.5 * random.standard_normal((60, 8, 8, 1))
    for image, k in enumerate(kind):
        place = random.integers(1, 7)
        if k == 0:
            x[image, place] += 1
        elif k == 1:
            x[image, :, place] += 1
    return {"x": x.astype("f4"), "class": kind.astype("u1")}


def batches(random, n):
    """20 steps of a fifth of the rows, in a new order each pass."""
    return np.concatenate([random.permutation(n).reshape(5, n // 5) for _ in range(STEPS // 5)]).astype("i4")


def loss(kind, scores, y, alpha=0.9, delta=1.0):
    """Mean over rows. Scores (rows, outputs)."""
    if kind == "softmax":
        return functional.cross_entropy(scores, y.long())
    y = y.float()
    s = scores[:, 0]
    if kind == "logistic":
        return functional.binary_cross_entropy_with_logits(s, y)
    if kind == "squared":
        return 0.5 * functional.mse_loss(s, y)
    if kind == "huber":
        return functional.huber_loss(s, y, delta=delta)
    if kind == "poisson":
        return functional.poisson_nll_loss(s, y, log_input=True, full=False)
    if kind == "quantile":
        return torch.maximum(alpha * (y - s), (alpha - 1) * (y - s)).mean()
    if kind == "gaussian":
        v = LEAST_VARIANCE + torch.exp(scores[:, 1])
        return 0.5 * (torch.log(v) + (y - s) ** 2 / v).mean()
    raise ValueError(kind)


class Residual(nn.Module):
    """h + inner(h)."""

    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, h):
        return h + self.inner(h)


def dense(act, outputs, norm=None):
    """7-16-12-outputs: dense, norm, activation."""
    layers = []
    for inputs, width in (7, 16), (16, 12):
        layers += [nn.Linear(inputs, width)] + ([norm(width)] if norm else []) + [act()]
    return nn.Sequential(*layers, nn.Linear(12, outputs))


def residual(norm=None):
    """7-12, two blocks of 12 with a path around each, 3."""
    def block():
        return Residual(nn.Linear(12, 12), *([norm(12)] if norm else []), nn.ReLU())
    return nn.Sequential(nn.Linear(7, 12), *([norm(12)] if norm else []), nn.ReLU(), block(), block(), nn.Linear(12, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding="same"), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 3))


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def adamw(net):
    """Weights decay, biases do not."""
    groups = [{"params": [p for name, p in net.named_parameters() if name.endswith(kind)], "weight_decay": decay}
              for kind, decay in (("weight", 0.01), ("bias", 0.0))]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)


SGD = ("sgd lr 0.05 momentum 0.9 nesterov", sgd)
OPTIMIZERS = {
    "adam": ("adam lr 0.001 betas 0.9 0.999 eps 1e-8",
             lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)),
    "adamw": ("adamw lr 0.001 betas 0.9 0.999 eps 1e-8, decay 0.01 of weights, not of biases", adamw),
    "adagrad": ("adagrad lr 0.01 eps 1e-10", lambda net: torch.optim.Adagrad(net.parameters(), lr=1e-2, eps=1e-10)),
}
# Name: net, loss, column of the target, optimizer.
NETS = {f"dense_{name}": (lambda act=act: dense(act, 3), "softmax", "class", SGD)
        for name, act in (("relu", nn.ReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh), ("silu", nn.SiLU))}
NETS |= {f"dense_relu_{name}": (lambda: dense(nn.ReLU, 3), "softmax", "class", optimizer) for name, optimizer in OPTIMIZERS.items()}
NETS |= {
    "layer_norm": (lambda: dense(nn.ReLU, 3, nn.LayerNorm), "softmax", "class", SGD),
    "batch_norm": (lambda: dense(nn.ReLU, 3, nn.BatchNorm1d), "softmax", "class", SGD),
    "residual": (residual, "softmax", "class", SGD),
    "residual_layer_norm": (lambda: residual(nn.LayerNorm), "softmax", "class", SGD),
    "logistic": (lambda: dense(nn.ReLU, 1), "logistic", "positive", SGD),
    "squared": (lambda: dense(nn.ReLU, 1), "squared", "target", SGD),
    "huber": (lambda: dense(nn.ReLU, 1), "huber", "target", SGD),
    "poisson": (lambda: dense(nn.ReLU, 1), "poisson", "count", SGD),
    "quantile": (lambda: dense(nn.ReLU, 1), "quantile", "target", SGD),
    "gaussian": (lambda: dense(nn.ReLU, 2), "gaussian", "target", SGD),
    "convolution": (convolution, "softmax", "class", SGD),
}
SETTINGS = {"huber": {"delta": 1.0}, "quantile": {"alpha": 0.9}, "gaussian": {"least_variance": LEAST_VARIANCE}}


def train(group, name, data, random):
    make, kind, target, (optimizer_text, make_optimizer) = NETS[name]
    net = make()
    # Rows in lines: the channel of an image goes first in torch.
    x = torch.from_numpy(data["x"] if data["x"].ndim == 2 else data["x"].transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(data[target])
    order = batches(random, len(x))
    text = " > ".join(str(layer).replace("\n", "") for layer in net)
    for key, value in {"loss": kind, "target": target, "layers": text, "optimizer": optimizer_text, **SETTINGS.get(kind, {})}.items():
        group.attrs[key] = value
    group["batches"] = order

    def keep(name, layout, tensors):
        """Tensors one after the other; their names and shapes."""
        tensors = list(tensors)
        group[name] = np.concatenate([tensor.detach().numpy().ravel() for _, tensor in tensors])
        lines = [" ".join([tensor_name, *map(str, tensor.shape)]) for tensor_name, tensor in tensors]
        if layout not in group:
            group.create_dataset(layout, data=np.array(lines, dtype=object), dtype=TEXT)

    keep("start", "layout", net.named_parameters())
    optimizer = make_optimizer(net)
    net.train()
    losses = []
    for rows in order:
        rows = torch.from_numpy(rows).long()
        optimizer.zero_grad()
        value = loss(kind, net(x[rows]), y[rows])
        value.backward()
        losses.append(value.item())
        optimizer.step()
    group["losses"] = np.array(losses, dtype="f8")
    keep("end", "layout", net.named_parameters())
    running = [(name, tensor) for name, tensor in net.named_buffers() if "running" in name]
    if running:
        keep("running", "running_layout", running)
    return losses


def main():
    torch.manual_seed(5)
    random = np.random.default_rng(20)
    table, images = make_table(random), make_images(random)
    with h5py.File(OUT / "networks.h5", "w") as file:
        file.attrs["source"] = f"torch {torch.__version__.split('+')[0]}, networks.py"
        file.attrs["licence"] = "made up, no data of others"
        for place, data in ("table", table), ("images", images):
            for name, values in data.items():
                file[f"{place}/{name}"] = values
        for name in NETS:
            losses = train(file.create_group(name), name, images if name == "convolution" else table, random)
            print(f"{name:20} loss {losses[0]:.5f} to {losses[-1]:.5f}")


main()
