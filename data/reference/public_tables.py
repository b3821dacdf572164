"""Rows of public tables as the figures beside this file were made from them; `tests/reference.rs` reads the same."""
import gzip

import numpy


def lines_of(path):
    with gzip.open(path, "rt") as file:
        return [line.strip() for line in file]


def rows_of(folder, file):
    """x, y, which rows are for the test. Numbers as they are written."""
    lines = lines_of(folder / file)
    name = file.split("/")[0]
    if name == "higgs-subset":
        # The test file has 500 rows: too few to tell anything apart.
        cells = numpy.array([line.split("\t") for line in lines], dtype=float)
        x, y = cells[:, 1:], cells[:, 0]
    elif name == "a9a":
        x, y = numpy.zeros((len(lines), 123)), numpy.array([float(line.split()[0]) for line in lines])
        for row, line in enumerate(lines):
            for cell in line.split()[1:]:
                x[row, int(cell.split(":")[0]) - 1] = float(cell.split(":")[1])
    elif name == "kddcup99":
        # Every tenth row; the three classes that are frequent, and the rest. Texts are numbered in the order of their bytes.
        cells = [line.split(",") for line in lines[::10]]
        for column in 1, 2, 3:
            texts = sorted({row[column] for row in cells})
            for row in cells:
                row[column] = texts.index(row[column])
        classes = ["normal.", "neptune.", "smurf."]
        y = numpy.array([classes.index(row[-1]) if row[-1] in classes else 3 for row in cells], dtype=float)
        x = numpy.array([row[:-1] for row in cells], dtype=float)
    elif name == "covtype-20k":
        cells = numpy.array([line.split(",") for line in lines], dtype=float)
        x, y = cells[:, :-1], cells[:, -1] - 1
    elif name == "casp-protein":
        cells = numpy.array([line.split(",") for line in lines[1:]], dtype=float)
        x, y = cells[:, 1:], cells[:, 0]
    else:
        cells = numpy.array([line.split(",") for line in lines[1:]], dtype=float)
        x, y = cells[:, :-1], cells[:, -1] / 100_000
    return x, y, numpy.arange(len(y)) % 4 == 3
