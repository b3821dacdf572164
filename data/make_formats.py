#!/usr/bin/env python3
"""Small files of other formats for the tests of `consort convert`, into data/formats/: needs numpy, pandas and pyarrow.

They are made here and hold nothing but these numbers, so they are free of any licence but the project's.
"""
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "formats")
os.makedirs(here, exist_ok=True)
n = 83  # a prime
i = np.arange(n)
table = pa.table({
    "small": pa.array(i % 7, pa.int64()),
    "tiny": pa.array((i % 5).astype(np.int8)),
    "unsigned": pa.array((i * 50_000_003) % 2**32, pa.uint32()),
    "real": pa.array(i / 8, pa.float64()),
    "holes": pa.array([None if k % 6 == 0 else k / 4 for k in range(n)], pa.float32()),
    "flag": pa.array(i % 3 == 0),
    "site": pa.array([None if k == 4 else ["north", "süd", ""][k % 3] for k in range(n)]),
    "y": pa.array([["cat", "dog"][k % 2] for k in range(n)]).dictionary_encode(),
})
for compression in ["none", "snappy", "zstd", "gzip"]:
    pq.write_table(table, f"{here}/{compression}.parquet", compression=compression, row_group_size=30,
                   data_page_version="2.0" if compression == "zstd" else "1.0")
pq.write_table(pa.table({"list": pa.array([[1], [2, 3]])}), f"{here}/nested.parquet")

x = (np.arange(n * 6).reshape(n, 2, 3) - 100).astype(">i8")
np.savez_compressed(f"{here}/arrays.npz", X=np.asfortranarray(x), y=np.array(["ä", "bb", "c"])[i % 3],
                    weight=i.astype("<f2") / 2, flag=i % 2 == 0)
np.savez(f"{here}/plain.npz", x[:, 0, :].astype("<f8") + 0.1, (i % 4).astype("<i4"))
np.save(f"{here}/fortran.npy", np.asfortranarray(x.astype("<i4")))
np.save(f"{here}/bytes.npy", np.array([b"no", b"yes"])[i % 2])
np.save(f"{here}/objects.npy", np.array([None, 1], dtype=object))
