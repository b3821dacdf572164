"""Values of every numeric dataset and compound field of a folder of HDF5 files as h5py reads them: corpus.json.

usage: make_corpus.py FOLDER     FOLDER: what CONSORT_EXTRA_DATA names. Python needs h5py, hdf5plugin, numpy, blake3.

An entry: file, dataset ("dataset/field" for fields), shape, and "hash": the first 16 hex digits of BLAKE3 over the values in row-major
order as little-endian float64, after `_FillValue`, `missing_value` (to NaN), `scale_factor` and `add_offset`; -0 as +0, all NaN
alike. "infinite": some value is, which Consort refuses. Only numbers of the files are here, none of the files themselves.
"""
import json, os, sys
import blake3, h5py, hdf5plugin, numpy as np  # noqa: F401: the plugin registers filters

folder = sys.argv[1]
found = []


def one(attribute):
    try:
        value = np.asarray(attribute)
        return float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "iuf" else None
    except (TypeError, ValueError):
        return None


def fields(dtype, outer=()):
    for name in dtype.names:
        of = dtype[name]
        base = of.subdtype[0] if of.subdtype else of
        if of.names and not of.subdtype:
            yield from fields(of, outer + (name,))
        else:
            yield outer + (name,), base


def add(file, name, values, attributes):
    if values.dtype.kind not in "iufb" or values.ndim == 0 or values.size == 0:
        return
    with np.errstate(all="ignore"):
        numbers = values.astype("f8")
        missing = np.zeros(numbers.shape, bool)
        for key in ("_FillValue", "missing_value"):
            if (fill := one(attributes.get(key))) is not None:
                missing |= numbers == fill
        scale, offset = one(attributes.get("scale_factor")), one(attributes.get("add_offset"))
        if scale is not None or offset is not None:
            numbers = numbers * (1.0 if scale is None else scale) + (0.0 if offset is None else offset)
        numbers[missing] = np.nan
        numbers += 0.0
        numbers[np.isnan(numbers)] = np.nan
    entry = {"file": file, "dataset": name, "shape": list(values.shape),
             "hash": blake3.blake3(numbers.astype("<f8").tobytes()).hexdigest()[:16]}
    if np.isinf(numbers).any():
        entry["infinite"] = True
    found.append(entry)


def look(file, opened):
    seen = set()

    def visit(group, path, depth):
        for key in sorted(group):
            try:
                thing = group[key]
            except (KeyError, OSError, RuntimeError):
                continue
            name = f"{path}/{key}".strip("/")
            if isinstance(thing, h5py.Group):
                if depth < 12 and thing.id not in seen:
                    seen.add(thing.id)
                    visit(thing, name, depth + 1)
            elif isinstance(thing, h5py.Dataset):
                try:
                    attributes = {}
                    for attribute in thing.attrs:
                        try:
                            attributes[attribute] = thing.attrs[attribute]
                        except (OSError, TypeError, ValueError):
                            pass
                    if thing.shape is None:
                        continue
                    if thing.dtype.names:
                        values = thing[...]
                        for parts, _ in fields(thing.dtype):
                            part = values
                            for inner in parts:
                                part = part[inner]
                            add(file, "/".join((name,) + parts), part, {})
                    else:
                        add(file, name, thing[...], attributes)
                except (OSError, TypeError, ValueError, RuntimeError) as e:
                    print(f"{file} {name}: {e}", file=sys.stderr)

    visit(opened, "", 0)


for where, folders, files in os.walk(folder):
    folders.sort()
    for name in sorted(files):
        path = os.path.join(where, name)
        if not h5py.is_hdf5(path):
            continue
        try:
            with h5py.File(path) as opened:
                look(os.path.relpath(path, folder), opened)
        except OSError as e:
            print(f"{path}: {e}", file=sys.stderr)

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus.json")
with open(out, "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(entry) for entry in found) + "\n]\n")
print(len(found), "datasets and fields")
