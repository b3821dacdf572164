"""Tables of the benchmarks, physics-like; a fifth as many rows to test on as to train on."""
import h5py
import numpy as np


def make_table(rng, n):
    """Two resonances behind detector noise: momenta, angles, tags, masses."""
    y = rng.random(n) < 0.53
    x = rng.normal(size=(n, 28)).astype("f4")
    pt, eta, phi = rng.gamma(2, 0.5, (n, 4)), rng.normal(0, 1.1, (n, 4)), rng.uniform(-np.pi, np.pi, (n, 4))
    mass = np.where(y[:, None], rng.normal(1.25, 0.35, (n, 4)), rng.gamma(3, 0.4, (n, 4)))
    x[:, 0:12:3], x[:, 1:12:3], x[:, 2:12:3] = pt, eta, phi
    x[:, 12:16] = 2.17 * (rng.random((n, 4)) < 0.35 + 0.2 * y[:, None])
    x[:, 16:20] = pt * np.cosh(np.clip(eta, -3, 3)) * (1 + 0.1 * rng.normal(size=(n, 4)))
    x[:, 20:24] = mass * (1 + 0.25 * rng.normal(size=(n, 4)))
    pair = 2 * pt[:, 0] * pt[:, 1] * (np.cosh(eta[:, 0] - eta[:, 1]) - np.cos(phi[:, 0] - phi[:, 1]))
    x[:, 24] = np.sqrt(pair) + 0.3 * mass[:, 0]
    x[:, 25], x[:, 26] = mass.min(1), mass.max(1) - mass.min(1)
    x[:, 27] = mass.mean(1) + 0.2 * rng.normal(size=n)
    return x, y.astype("u1")


def make_multi(rng, n):
    """Seven nested classes of a score that is not linear; most columns are flags."""
    x = rng.normal(size=(n, 54)).astype("f4")
    x[:, 14:] = x[:, 14:] > 1
    score = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.7 * np.abs(x[:, 3]) + x[:, 4] * (x[:, 5] > 0)
    score += 0.5 * x[:, 14:20].sum(1) + 0.3 * rng.normal(size=n)
    return x, np.searchsorted(np.quantile(score, [0.05, 0.2, 0.55, 0.8, 0.92, 0.97]), score).astype("u1")


def make(path, table, n):
    x, y = table(np.random.default_rng(n), n + n // 5)
    with h5py.File(path, "w") as file:
        for part, rows in ("train", slice(0, n)), ("test", slice(n, None)):
            file.create_dataset(f"{part}/X", data=x[rows], chunks=(8192, x.shape[1]), compression="gzip", compression_opts=1, shuffle=True)
            file.create_dataset(f"{part}/y", data=y[rows], chunks=(65536,))
