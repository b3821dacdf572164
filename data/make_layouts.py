"""Writes data/layouts/: one table of 37 rows and 5 columns in every layout that people have it in, and what is in it (table.json).

Needs h5py; for pytables.h5 and pandas_*.h5 also tables and pandas; for filtered.h5 also hdf5plugin. The files are committed:
neither the build nor the tests need Python. Running it again gives the same values (some files hold the time). Written with
Python 3.11, h5py 3.16.0, hdf5plugin 7.1.0, numpy 2.4.6, tables 3.11.1 and pandas 3.1.1. `make_layouts.py filtered` writes only
filtered.h5, which has other values: see there.

Columns, chosen so that every type of a layout holds them exactly:
    day     whole, 0..6
    charge  whole, -3..3
    energy  quarters, 0..100, missing in rows 5 and 20
    tight   0 or 1
    hits    whole, 0..70000, mostly 0 (for the sparse layout)
target: 0, 1 or 2, or the names of these classes. Made up; no data of others.
"""

import json
import os
import sys

import h5py
import numpy as np

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layouts")
N = 37
NAMES = ["day", "charge", "energy", "tight", "hits"]
CLASSES = ["muon", "pion", "kaon"]

row = np.arange(N)
day = (row * 3 + 1) % 7
charge = (row * 5) % 7 - 3
energy = ((row * 89) % 401) / 4.0
energy[[5, 20]] = np.nan
tight = (row * row) % 3 == 1
hits = np.where(row % 4 == 2, (row * 7919) % 70001, 0)
target = (row * 11 // 4) % 3
labels = [CLASSES[c] for c in target]
X = np.column_stack([day, charge, energy, tight, hits])
COLUMNS = dict(zip(NAMES, X.T))
assert X.shape == (N, 5) and np.array_equal(X.astype("f4").astype("f8"), X, equal_nan=True)


def new(name, **how):
    how.setdefault("libver", ("v110", "v110"))  # what HDF5 1.10 can read
    return h5py.File(os.path.join(HERE, name), "w", **how)


def named(dataset):
    dataset.attrs["feature_names"] = NAMES
    return dataset


def numbers_and_text():
    with new("contiguous.h5") as f:
        named(f.create_dataset("X", data=X))
        f["y"] = target
    with new("chunked.h5", libver="earliest") as f:
        how = dict(compression="gzip", shuffle=True, fletcher32=True)
        named(f.create_dataset("X", data=X.astype("f4"), chunks=(10, 3), **how))
        f.create_dataset("y", data=target.astype("i1"), chunks=(16,), **how)
    with new("compact.h5") as f:
        for name, values in [("X", X), ("y", target)]:
            create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            create.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(values.shape)
            made = h5py.h5d.create(f.id, name.encode(), h5py.h5t.py_create(values.dtype), space, create)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))
        named(f["X"])
    with new("big_endian.h5") as f:
        named(f.create_dataset("X", data=X.astype(">f8")))
        f["y"] = target.astype(">i4")
    with new("columns.h5") as f:
        for name, values in COLUMNS.items():
            f[f"events/{name}"] = values.astype("f4")
        f["events/label"] = target
        f["events/mc_energy"] = np.arange(N) / 2.0
    with new("several.h5") as f:
        first = f.create_dataset("first", data=X[:, :3])
        first.attrs["feature_names"] = NAMES[:3]
        f["tight"] = tight.astype("u1")
        f["hits"] = hits.astype("u4")
        f["y"] = target
    with new("integers.h5") as f:
        f["events/day"] = day.astype("u1")
        f["events/charge"] = charge.astype("<i2")
        f["events/energy"] = energy.astype("f2")
        f["events/tight"] = tight.astype(">u8")
        f["events/hits"] = hits.astype(">i4")
        f["events/y"] = target.astype("<u2")
    with new("flags.h5") as f:
        days = dict(MON=0, TUE=1, WED=2, THU=3, FRI=4, SAT=5, SUN=6)
        f.create_dataset("events/day", data=day.astype("u1"), dtype=h5py.enum_dtype(days, basetype="u1"))
        f["events/charge"] = charge.astype("i1")
        f["events/energy"] = energy
        f["events/tight"] = tight
        f["events/hits"] = hits
        f["events/y"] = target
    with new("labels_fixed.h5") as f:
        named(f.create_dataset("X", data=X))
        f["y"] = np.array(labels, dtype="S6")
    with new("labels_any_length.h5") as f:
        named(f.create_dataset("X", data=X))
        f.create_dataset("y", data=labels, dtype=h5py.string_dtype())
    with new("three_axes.h5") as f:
        # The columns are those of (row, 5, 1): trailing axes are flattened.
        named(f.create_dataset("X", data=X.reshape(N, 5, 1), chunks=(8, 2, 1), compression="gzip"))
        f["y"] = target
    with new("packed.h5") as f:
        f["events/day"] = day.astype("u1")
        f["events/charge"] = charge.astype("i1")
        stored = np.where(np.isnan(energy), -999, np.nan_to_num(energy) * 4 - 40).astype("i2")
        packed = f.create_dataset("events/energy", data=stored)
        packed.attrs["scale_factor"] = 0.25
        packed.attrs["add_offset"] = 10.0
        packed.attrs["_FillValue"] = np.int16(-999)
        f["events/tight"] = tight.astype("i1")
        f["events/hits"] = hits.astype("i4")
        f["events/y"] = target


def compound():
    record = np.zeros(N, dtype=[("y", "u1"), ("day", "u1"), ("charge", "<i2"), ("energy", ">f4"), ("tight", "?"), ("hits", "<u4")])
    for name, values in COLUMNS.items():
        record[name] = values
    record["y"] = target
    with new("compound.h5", libver="earliest") as f:
        f.create_dataset("events", data=record, chunks=(16,), compression="gzip", shuffle=True)
    nested = np.zeros(N, dtype=[("first", [("day", "f4"), ("charge", "f4")]), ("rest", "<f8", (3,)), ("label", "S6")], )
    nested["first"]["day"], nested["first"]["charge"] = day, charge
    nested["rest"] = X[:, 2:]
    nested["label"] = labels
    with new("compound_nested.h5") as f:
        f["events"] = nested


def elsewhere():
    with new("virtual_part_0.h5") as f:
        f["X"] = X[:20]
    with new("virtual_part_1.h5") as f:
        f["X"] = X[20:].astype("f4")
    with new("virtual.h5") as f:
        layout = h5py.VirtualLayout(shape=X.shape, dtype="f8")
        layout[:20] = h5py.VirtualSource("virtual_part_0.h5", "X", shape=(20, 5))
        layout[20:] = h5py.VirtualSource("virtual_part_1.h5", "X", shape=(17, 5), dtype="f4")
        named(f.create_virtual_dataset("X", layout))
        f["y"] = target
    with new("external.h5") as f:
        f["X"] = h5py.ExternalLink("contiguous.h5", "/X")
        f["y"] = h5py.ExternalLink("chunked.h5", "/y")
    for number, rows in enumerate([slice(0, 20), slice(20, 20), slice(20, 30), slice(30, 37)]):
        with new(f"run-{number}.h5") as f:
            named(f.create_dataset("X", data=X[rows].astype("f4" if number == 2 else "f8")))
            f["y"] = target[rows]
    with open(os.path.join(HERE, "runs.txt"), "w") as f:
        f.write("# the same table in four files, the second without rows\nrun-0.h5\nrun-[1-3].h5\n")


def conventions():
    with new("dimension_scales.h5") as f:
        f["row"] = row.astype("f8")
        f["row"].make_scale("row")
        for name, unit in zip(NAMES, ["day", "e", "GeV", "1", "1"]):
            f[name] = COLUMNS[name]
            f[name].dims[0].attach_scale(f["row"])
            f[name].attrs["units"] = unit
        f["y"] = target
    with new("matlab.mat", libver=None, userblock_size=512) as f:
        for name, values in [("X", X.T), ("y", target.astype("f8")[None, :])]:
            f[name] = values
            f[name].attrs["MATLAB_class"] = np.bytes_(b"double")
    with open(os.path.join(HERE, "matlab.mat"), "r+b") as f:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, written by make_layouts.py HDF5 schema 1.00 ."
        f.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")

    def frame(f, name, columns, index):
        group = f.create_group(name)
        group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": columns})
        group.create_dataset("_index", data=index, dtype=h5py.string_dtype())
        group["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        return group

    def anndata(name):
        f = new(name)
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        frame(f, "var", [], NAMES)
        obs = frame(f, "obs", ["cell_type", "n"], [f"cell{i}" for i in range(N)])
        obs["n"] = row
        kind = obs.create_group("cell_type")
        kind.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        # Categories are sorted by name, not by class.
        categories = sorted(CLASSES)
        kind["codes"] = np.array([categories.index(label) for label in labels], dtype="i1")
        kind.create_dataset("categories", data=categories, dtype=h5py.string_dtype())
        return f

    with anndata("dense.h5ad") as f:
        f.create_dataset("X", data=X.astype("f4"), chunks=(19, 5), compression="gzip")
        f["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    with anndata("sparse.h5ad") as f:
        matrix = f.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": X.shape})
        filled = X != 0  # NaN is not 0
        matrix.create_dataset("data", data=X[filled].astype("f4"), chunks=(50,), compression="gzip")
        matrix.create_dataset("indices", data=np.nonzero(filled)[1].astype("i4"), chunks=(50,), compression="gzip")
        matrix["indptr"] = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype("i4")


def tables_and_frames():
    import pandas
    import tables

    class Event(tables.IsDescription):
        day = tables.UInt8Col(pos=0)
        charge = tables.Int16Col(pos=1)
        energy = tables.Float64Col(pos=2)
        tight = tables.BoolCol(pos=3)
        hits = tables.UInt32Col(pos=4)
        label = tables.Int8Col(pos=5)

    path = os.path.join(HERE, "pytables.h5")
    with tables.open_file(path, "w") as f:
        table = f.create_table("/readout", "events", Event, createparents=True, chunkshape=16, track_times=False)
        for i in range(N):
            table.append([(day[i], charge[i], energy[i], tight[i], hits[i], target[i])])
    frame = pandas.DataFrame(
        dict(day=day.astype("u1"), charge=charge.astype("i2"), energy=energy, tight=tight, hits=hits.astype("f8"), label=target)
    )
    how = dict(key="df", mode="w", index=False)
    frame.to_hdf(os.path.join(HERE, "pandas_table.h5"), format="table", data_columns=["label"], complevel=1, **how)
    frame.to_hdf(os.path.join(HERE, "pandas_fixed.h5"), format="fixed", **how)


def filtered_values(shape, stretch, dtype):
    """Even stretches of elements compress well, odd ones not at all: splitmix64 of the element's number."""
    i = np.arange(np.prod(shape), dtype="u8")
    z = (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    noise = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    value = np.where(i // np.uint64(stretch) % np.uint64(2) == 0, i // np.uint64(3) % np.uint64(50), noise)
    bits = 24 if np.dtype(dtype) == np.dtype("f4") else min(53, 8 * np.dtype(dtype).itemsize)
    return (value & np.uint64(2**bits - 1)).reshape(shape).astype(dtype)


def filtered():
    """filtered.h5: what decoders past the HDF5 library are tested with, a group for every setting of a filter."""
    import hdf5plugin as p

    settings = dict(
        lzf=dict(compression="lzf"),
        lzf_shuffled=dict(compression="lzf", shuffle=True, fletcher32=True),
        zstd=p.Zstd(),
        zstd_shuffled=dict(p.Zstd(clevel=19), shuffle=True, fletcher32=True),
        lz4=p.LZ4(),
        lz4_blocks=p.LZ4(nbytes=100),
        bzip2=p.BZip2(),
        bitshuffle=p.Bitshuffle(cname="none"),
        bitshuffle_blocks=p.Bitshuffle(nelems=16, cname="none"),
        bitshuffle_lz4=p.Bitshuffle(cname="lz4"),
        bitshuffle_lz4_blocks=p.Bitshuffle(nelems=24, cname="lz4"),
        bitshuffle_zstd=p.Bitshuffle(nelems=64, cname="zstd", clevel=3),
        blosc_blosclz_bits=p.Blosc(cname="blosclz", shuffle=p.Blosc.BITSHUFFLE),
        blosc_blosclz=p.Blosc(cname="blosclz", clevel=9, shuffle=p.Blosc.NOSHUFFLE),
        blosc_lz4=p.Blosc(cname="lz4", shuffle=p.Blosc.SHUFFLE),
        blosc_lz4hc=p.Blosc(cname="lz4hc", clevel=9, shuffle=p.Blosc.BITSHUFFLE),
        blosc_snappy=p.Blosc(cname="snappy", shuffle=p.Blosc.SHUFFLE),
        blosc_zlib=p.Blosc(cname="zlib", shuffle=p.Blosc.SHUFFLE),
        blosc_zstd=p.Blosc(cname="zstd", shuffle=p.Blosc.SHUFFLE),
    )
    with new("filtered.h5") as f:
        for name, how in settings.items():
            group = f.create_group(name)
            # 3 × 2 chunks, those at the edges in part.
            for dtype in ["u1", "<i2", ">i4", "<f4", ">f8"]:
                if dtype == "<f4" and not name.startswith("blosc_zstd"):
                    continue
                data = filtered_values((150, 3), 192, dtype)
                group.create_dataset(dtype.strip("<>") + ("_be" if ">" in dtype else ""), data=data, chunks=(64, 2), **how)
            one = filtered_values((150,), 100, "u1")
            group.create_dataset("one", data=one, chunks=(64,), **how)
        # A chunk of many blocks of its filter, the last in part; it compresses well but for its last stretch.
        data = filtered_values((20_011,), 19_800, "<i4")
        for name, how in dict(
            lzf=settings["lzf_shuffled"],
            zstd=settings["zstd"],
            lz4=p.LZ4(nbytes=7000),
            bzip2=p.BZip2(blocksize=1),
            bitshuffle_lz4=p.Bitshuffle(cname="lz4"),
            bitshuffle_zstd=p.Bitshuffle(nelems=3000, cname="zstd"),
            blosc_blosclz=p.Blosc(cname="blosclz", clevel=1, shuffle=p.Blosc.NOSHUFFLE),
            blosc_blosclz_bits=p.Blosc(cname="blosclz", clevel=1, shuffle=p.Blosc.BITSHUFFLE),
            blosc_lz4=p.Blosc(cname="lz4", clevel=1, shuffle=p.Blosc.SHUFFLE),
            blosc_lz4_bits=p.Blosc(cname="lz4", clevel=1, shuffle=p.Blosc.BITSHUFFLE),
            blosc_zstd=p.Blosc(cname="zstd", clevel=1, shuffle=p.Blosc.SHUFFLE),
        ).items():
            f.create_dataset(f"long/{name}", data=data, chunks=(20_011,), **how)
        for name, how in dict(blosc2=p.Blosc2(), zfp=p.Zfp(reversible=True)).items():
            f.create_dataset(f"unknown/{name}", data=filtered_values((150, 3), 192, "f8"), chunks=(64, 2), **how)
        # Filters of every library; what they give is compared with it.
        for dtype, digits, fill in [(">i4", 0, None), (">i4", 0, 7), ("<u2", 9, 49), (">f8", 3, 0.5), ("<f4", 1, None)]:
            how = dict(chunks=(64, 2), scaleoffset=digits, fillvalue=fill, shuffle=dtype[1] == "i")
            name = f"own/scaled_{dtype.strip('<>')}_{digits}_{fill}"
            f.create_dataset(name, data=filtered_values((150, 3), 450, dtype), **how)
        for name, bits in [("own/nbit", 32), ("own/nbit_12", 12), ("own/szip", 32)]:
            create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            create.set_chunk((64, 2))
            if name == "own/szip":
                create.set_szip(h5py.h5z.SZIP_NN_OPTION_MASK, 8)
            else:
                create.set_filter(h5py.h5z.FILTER_NBIT)
            kind = h5py.h5t.STD_I32BE.copy()
            kind.set_precision(bits)
            made = h5py.h5d.create(f.id, name.encode(), kind, h5py.h5s.create_simple((150, 3)), create)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, filtered_values((150, 3), 450, "i4"))
        f.create_dataset("unknown/zstd_half", data=filtered_values((150, 3), 192, "u1").astype("f2"), chunks=(64, 2), **p.Zstd())


def main():
    os.makedirs(HERE, exist_ok=True)
    if sys.argv[1:] == ["filtered"]:
        return filtered()
    numbers_and_text()
    compound()
    elsewhere()
    conventions()
    tables_and_frames()
    filtered()
    rows = [[None if np.isnan(v) else v for v in values] for values in X.tolist()]
    with open(os.path.join(HERE, "table.json"), "w") as f:
        lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in dict(names=NAMES, classes=CLASSES, target=target.tolist()).items()]
        f.write("{" + "\n ".join(lines) + '\n "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]}\n")


if __name__ == "__main__":
    sys.exit(main())
