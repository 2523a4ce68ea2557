"""Wrong types at the public doors: every argument of every public function, one after the other, with values of other types.

Each is taken or refused in one sentence of ours, which names the argument, and never in the words of Python, numpy or pybind11.
"""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
import spd_fast as spd
from spd_fast.engine import probes
from spd_fast.engine.gradients import pack_motifs, parameter_gradient, read_motifs
from spd_fast.engine.initial import initial_parameters
from spd_fast.images import ImageData, load_images, resize_images
from spd_fast.predictors.features import adjacency_encoding, path_encoding, structural_features
from spd_fast.predictors.gaussian_process import fit_gaussian_process
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.torch import motif_metrics, packed_metrics
from spd_fast.truth.build import build_truth
from spd_fast.truth.table import columns_of

FOREIGN = re.compile(
    r"has no attribute|not iterable|has no len|not supported|indices must|incompatible function|missing 1 required|unexpected keyword"
    r"|reduction operation|Cannot interpret|could not convert|not subscriptable|unhashable|must be real number|inhomogeneous"
    r"|'\w+' object|truth value|only .*scalar|int\(\)|float\(\)|expected str, bytes|argument (of|should|must)|bad operand"
)
"""Words of Python, numpy and pybind11 in their own errors."""
WRONG: tuple[Any, ...] = (
    None,
    "7",
    b"7",
    1.5,
    True,
    1j,
    float("inf"),
    float("nan"),
    -1,
    [],
    {},
    {"a": 1},
    [None],
    ["a", "b"],
    object(),
    int,
    np.zeros((2, 2)),
    np.array(None),
    np.array([1j]),
    [[1], [1, 2]],
    (each for each in ()),
    torch.float32,
)
CELLS, ACCURACY = small.pool()
SHAPE = spd.MotifShape(6, classes=3, image_channels=2)
DISH = spd.Dish.random(per_class=2, classes=3, image_size=5, image_channels=2)
TRAINED = spd.train_motifs(CELLS[:2], SHAPE, DISH, epochs=1, threads=1)
PACKED = pack_motifs(CELLS[:2], SHAPE, TRAINED.parameters, DISH.images.shape[1:])
ONE_EPOCH = small.RECIPE.replace({"outer.epochs": 1, "inner.epochs": 1})
TRUTH = spd.TruthTable.load()
MOTIFS = {"cells": CELLS[:2], "shape": SHAPE, "dish": DISH, "epochs": 1, "threads": 1}
GRADIENT = {
    "cells": CELLS[:2],
    "shape": SHAPE,
    "images": DISH.images,
    "labels": DISH.labels,
    "parameters": TRAINED.parameters,
}
TENSORS = {"images": torch.tensor(DISH.images), "labels": torch.tensor(DISH.labels)}
FITTED = spd.SPDPredictor(features=("structure",), threads=1).fit(CELLS, ACCURACY)
PROCESS = FITTED.process_
assert PROCESS is not None
SAMPLE = TRUTH.sample(2, 0)
RANKING = spd.rank(CELLS, budget=0)

DOORS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "train_motifs": (spd.train_motifs, MOTIFS),
    "motif_hypergradient": (spd.motif_hypergradient, MOTIFS),
    "motif_gradient": (spd.motif_gradient, GRADIENT),
    "pack_motifs": (
        pack_motifs,
        {"cells": CELLS[:2], "shape": SHAPE, "parameters": TRAINED.parameters, "image_shape": (2, 5, 5)},
    ),
    "read_motifs": (read_motifs, {"motifs": PACKED, "images": DISH.images, "labels": DISH.labels, "threads": 1}),
    "motif_metrics": (motif_metrics, TENSORS | {"cells": CELLS[:2], "shape": SHAPE, "epochs": 1}),
    "packed_metrics": (packed_metrics, TENSORS | {"motifs": PACKED}),
    "Adam": (spd.Adam, {}),
    "SGD": (spd.SGD, {}),
    "RMSProp": (spd.RMSProp, {}),
    "Dish": (spd.Dish, {"images": DISH.images, "labels": DISH.labels}),
    "Dish.random": (spd.Dish.random, {"per_class": 1, "classes": 2, "image_size": 4}),
    "Dish.from_arrays": (spd.Dish.from_arrays, {"arrays": DISH.arrays()}),
    "MotifShape": (spd.MotifShape, {"stem_channels": 2}),
    "count_parameters": (spd.count_parameters, {"cell": CELLS[0], "shape": SHAPE}),
    "count_flops": (spd.count_flops, {"cell": CELLS[0], "shape": SHAPE}),
    "fit_dish": (spd.fit_dish, {"cells": CELLS, "accuracy": ACCURACY, "recipe": ONE_EPOCH, "threads": 1}),
    "dish_search": (
        spd.dish_search,
        {"cells": CELLS, "accuracy": ACCURACY, "recipe": ONE_EPOCH, "max_labelled": 5, "start": 5, "threads": 1},
    ),
    "score_cells": (spd.score_cells, {"dish": DISH, "recipe": ONE_EPOCH, "cells": CELLS[:2], "threads": 1}),
    "rank": (spd.rank, {"candidates": CELLS[:2], "labelled": CELLS, "accuracy": ACCURACY, "budget": 0}),
    "SPDPredictor": (
        lambda **parameters: spd.SPDPredictor(**({"features": ("structure",)} | parameters)).fit(CELLS, ACCURACY),
        dict.fromkeys(inspect.signature(spd.SPDPredictor).parameters),
    ),
    "SPDPredictor.fit": (spd.SPDPredictor(features=("structure",)).fit, {"cells": CELLS, "accuracy": ACCURACY}),
    "SPDPredictor.query": (FITTED.query, {"cells": CELLS}),
    "SPDPredictor.predict": (FITTED.predict, {"cells": CELLS}),
    "SPDPredictor.score": (FITTED.score, {"cells": CELLS, "accuracy": ACCURACY}),
    "TruthTable.load": (spd.TruthTable.load, {}),
    "TruthTable.sample": (TRUTH.sample, {"n": 3, "seed": 0}),
    "TruthTable.split": (TRUTH.split, {"n": 3, "seed": 0}),
    "TruthTable.subset": (TRUTH.subset, {"indices": [0, 1]}),
    "TruthTable.compared": (TRUTH.compared, {"what": "accuracy"}),
    "TruthTable.row": (TRUTH.row, {"digits": TRUTH.hashes[0]}),
    "cells[...]": (TRUTH.cells.__getitem__, {"index": 0}),
    "recipes.get": (spd.recipes.get, {"name": "demo"}),
    "recipes.load": (spd.recipes.load, {"name_or_path": "demo"}),
    "Recipe.replace": (small.RECIPE.replace, {"settings": {}}),
    "Recipe.from_json": (spd.Recipe.from_json, {"text": small.RECIPE.to_json()}),
    "structural_features": (structural_features, {"cells": CELLS}),
    "adjacency_encoding": (adjacency_encoding, {"cells": CELLS}),
    "path_encoding": (path_encoding, {"cells": CELLS}),
    "initial_parameters": (initial_parameters, {"cell": CELLS[0], "shape": SHAPE}),
    "parameter_gradient": (parameter_gradient, GRADIENT),
    "PackedMotifs.take": (PACKED.take, {"rows": [0]}),
    "fit_gaussian_process": (fit_gaussian_process, {"features": [np.eye(4)], "accuracy": np.arange(4.0)}),
    "GaussianProcess.predict": (PROCESS.predict, {"features": PROCESS.features}),
    "GaussianProcess.predict_interval": (PROCESS.predict_interval, {"features": PROCESS.features}),
    "CellColumns": (CellColumns, {"vertices": [2], "edge_bits": [1], "op_codes": [0]}),
    "CellColumns.from_cells": (CellColumns.from_cells, {"cells": CELLS}),
    "TruthTable": (
        spd.TruthTable,
        {"cells": SAMPLE.cells, "measurements": SAMPLE.measurements, "budgets": SAMPLE.budgets, "seeds": SAMPLE.seeds},
    ),
    "TruthTable.from_nasbench101": (spd.TruthTable.from_nasbench101, {"table": None}),
    "columns_of": (columns_of, {"cells": CELLS}),
    "Ranking.best": (RANKING.best, {"n": 3}),
    "ImageData": (
        ImageData,
        {
            "train_images": np.zeros((2, 4, 4)),
            "train_labels": np.arange(2),
            "test_images": None,
            "test_labels": None,
            "name": "images",
        },
    ),
    "logit_gradient": (probes.logit_gradient, {name: GRADIENT[name] for name in GRADIENT if name != "labels"}),
    "step_profile": (
        probes.step_profile,
        {"cell": CELLS[0], "shape": SHAPE, "images": DISH.images, "labels": DISH.labels, "repeats": 1},
    ),
    "load_images": (load_images, {"path": "nowhere.npz"}),
    "resize_images": (resize_images, {"images": DISH.images, "size": 3}),
    "build_truth": (build_truth, {"cells": CELLS[:1], "data": "nowhere.npz", "out": "out.npz", "shape": SHAPE}),
}


@pytest.mark.parametrize("value", [None, 1, True, 1.5, b"p.npz", ["p.npz"]], ids=repr)
def test_a_path_is_a_text_or_a_path(value: Any) -> None:
    """An integer would be the file of that number."""
    for door in (
        FITTED.save,
        spd.SPDPredictor.load,
        DISH.save,
        spd.Dish.load,
        SAMPLE.save,
        RANKING.save,
        load_images,
        lambda path: spd.TruthTable.load([] if path is None else path),
    ):
        with pytest.raises(TypeError, match=r"^path is .*, expected a path$"):
            door(value)


@pytest.mark.filterwarnings("ignore:all accuracies are alike", "ignore:tau of", "ignore:all training cells")
@pytest.mark.parametrize("name", DOORS)
def test_every_argument_of_every_door(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    door, right = DOORS[name]
    parameters = inspect.signature(door).parameters
    taken = [
        p
        for p in parameters
        if parameters[p].kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    strange = []
    for argument in taken or list(right):
        for value in WRONG:
            if value is int and argument in ("accuracy", "loss", "progress"):
                continue  # a function of other arguments, which fails when it is called
            try:
                door(**(right | {argument: value}))
            except (TypeError, ValueError, IndexError, OSError) as error:
                if FOREIGN.search(str(error)) or "\n" in str(error):
                    strange.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
            except Exception as error:
                strange.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
    assert not strange, "\n".join(strange)
    assert os.listdir(tmp_path) in ([], ["7"])
