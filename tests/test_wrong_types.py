"""Wrong types at the public doors: every argument of every public function, one after the other, with values of other types.

Each is taken or refused in one sentence of ours, which names the argument, and never in the words of Python, numpy or pybind11.
"""

import importlib
import inspect
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nasbench_files
import small
import spd_fast as spd
from spd_fast import natsbench
from spd_fast.engine import probes
from spd_fast.engine.gradients import pack_motifs, parameter_gradient, read_motifs
from spd_fast.engine.initial import initial_parameters
from spd_fast.images import ImageData, load_images, resize_images
from spd_fast.nasbench101 import api
from spd_fast.outer.runs import RunFolderError
from spd_fast.predictors import proxies
from spd_fast.predictors.features import adjacency_encoding, path_encoding, structural_features
from spd_fast.predictors.gaussian_process import fit_gaussian_process
from spd_fast.predictors.naslib import NASLibPredictor
from spd_fast.ranking.tables import CellTable, read_table, require_writable, write_table
from spd_fast.scoreboard.board import GOALS, build_board, outcome_of
from spd_fast.scoreboard.judge import judge, precision_at
from spd_fast.scoreboard.trial import draw_trial, trial_of_pools, trial_of_runs
from spd_fast.spaces.cell import OPS
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import random_cells, read_cells, sample_cells
from spd_fast.spaces.nats_cell import NatsColumns
from spd_fast.spaces.perceptron import PerceptronColumns
from spd_fast.supernet import Supernet, train_supernet
from spd_fast.torch import motif_metrics, packed_metrics
from spd_fast.truth.build import build_truth
from spd_fast.truth.table import columns_of, write_truth

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
BANANAS = spd.BananasPredictor(epochs=1).fit(CELLS, ACCURACY)
PROCESS = FITTED.process_
assert PROCESS is not None
SAMPLE = TRUTH.sample(2, 0)
RANKING = spd.rank(CELLS, budget=0)

NATS = spd.NatsCell.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
CURVE = np.ones(1)
ARCHITECTURE = natsbench.NatsArchitecture(
    0, NATS, (natsbench.NatsRun("cifar10", 0, 1, CURVE, CURVE, {}, {}, CURVE, 1.0, 1.0),)
)
NASLIB = NASLibPredictor(spd.SPDPredictor(features=("structure",)))
NASLIB.fit(CELLS, ACCURACY)
COLUMNS: dict[str, list[Any]] = {"cell": [CELLS[0].to_json()], "acc": [0.9]}
CELL_TABLE = CellTable.of(COLUMNS, "table.csv")
TRIAL = draw_trial(TRUTH, pool_sizes=6, test_cells=100, seeds=1)
JUDGED = judge(np.arange(100.0), np.arange(100.0), resamples=2)
SHORT = ONE_EPOCH.replace({"inner.epochs": 2, "inner.batch_size": 4})
SHARED = small.RECIPE.replace({"inner.init": "shared", "inner.epochs": 1})
CHECKED = spd.Dish(DISH.images, DISH.labels, DISH.images, DISH.labels)
SUPERNET = train_supernet(CHECKED, SHARED, CELLS[:2], threads=1)

FOLDER = tempfile.TemporaryDirectory()  # removed at the end of the process
TABLE_FILE = Path(FOLDER.name) / "table.npz"
RNG = np.random.default_rng(0)
TABLE = spd.nasbench101.convert(
    nasbench_files.write(
        Path(FOLDER.name) / "some.tfrecord",
        [nasbench_files.payload(cell, 108, nasbench_files.random_values(RNG)) for cell in CELLS[:3] for _ in range(3)],
    ),
    TABLE_FILE,
)
BENCH = api.NASBench(TABLE_FILE)
IN_TABLE = api.ModelSpec(CELLS[0].matrix, CELLS[0].ops)

NASBENCH101: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "isomorphic": (spd.nasbench101.isomorphic, {"first": CELLS[0], "second": CELLS[1]}),
    "neighbours": (spd.nasbench101.neighbours, {"cell": CELLS[0]}),
    "mutate": (spd.nasbench101.mutate, {"cell": CELLS[0], "rng": np.random.default_rng(0)}),
    "crossover": (
        spd.nasbench101.crossover,
        {"first": CELLS[0], "second": CELLS[1], "rng": np.random.default_rng(0)},
    ),
    "open_table": (spd.nasbench101.open, {"path": "nowhere.npz"}),
    "convert": (spd.nasbench101.convert, {"tfrecord": "nowhere", "out": "out.npz"}),
    "Table.__getitem__": (TABLE.__getitem__, {"index": 0}),
    "Table.column": (TABLE.column, {"metric": "test_accuracy"}),
    "Table.query": (TABLE.query, {"cell": 0}),
    "Table.row": (TABLE.row, {"cell": CELLS[0]}),
    "Table.rows": (TABLE.rows, {"cells": CELLS[:2]}),
    "Table.sample": (TABLE.sample, {"n": 1, "seed": 0}),
    "ModelSpec": (api.ModelSpec, {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}),
    "ModelSpec.hash_spec": (IN_TABLE.hash_spec, {"canonical_ops": OPS}),
    "NASBench": (api.NASBench, {"dataset_file": TABLE_FILE}),
    "NASBench.query": (BENCH.query, {"model_spec": IN_TABLE}),
    "NASBench.is_valid": (BENCH.is_valid, {"model_spec": IN_TABLE}),
    "NASBench.get_metrics_from_spec": (BENCH.get_metrics_from_spec, {"model_spec": IN_TABLE}),
    "NASBench.get_metrics_from_hash": (BENCH.get_metrics_from_hash, {"module_hash": CELLS[0].module_hash}),
}

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
    "train_supernet": (train_supernet, {"dish": CHECKED, "recipe": SHARED, "cells": CELLS[:2], "threads": 1}),
    "Supernet.score": (SUPERNET.score, {"dish": CHECKED, "cells": CELLS[:2], "threads": 1}),
    "Supernet.weights_of": (SUPERNET.weights_of, {"cells": CELLS[:2]}),
    "rank": (spd.rank, {"candidates": CELLS[:2], "labelled": CELLS, "accuracy": ACCURACY, "budget": 0}),
    "SPDPredictor": (
        lambda **parameters: spd.SPDPredictor(**({"features": ("structure",)} | parameters)).fit(CELLS, ACCURACY),
        dict.fromkeys(inspect.signature(spd.SPDPredictor).parameters),
    ),
    "SPDPredictor.fit": (spd.SPDPredictor(features=("structure",)).fit, {"cells": CELLS, "accuracy": ACCURACY}),
    "SPDPredictor.query": (FITTED.query, {"cells": CELLS}),
    "SPDPredictor.predict": (FITTED.predict, {"cells": CELLS}),
    "SPDPredictor.score": (FITTED.score, {"cells": CELLS, "accuracy": ACCURACY}),
    "BananasPredictor": (
        lambda **parameters: spd.BananasPredictor(**({"epochs": 1} | parameters)).fit(CELLS, ACCURACY),
        dict.fromkeys(inspect.signature(spd.BananasPredictor).parameters),
    ),
    "BananasPredictor.fit": (spd.BananasPredictor(epochs=1).fit, {"cells": CELLS, "accuracy": ACCURACY}),
    "BananasPredictor.query": (BANANAS.query, {"cells": CELLS}),
    "BananasPredictor.predict": (BANANAS.predict, {"cells": CELLS}),
    "BananasPredictor.score": (BANANAS.score, {"cells": CELLS, "accuracy": ACCURACY}),
    "TruthTable.load": (spd.TruthTable.load, {}),
    "TruthTable.sample": (TRUTH.sample, {"n": 3, "seed": 0}),
    "TruthTable.split": (TRUTH.split, {"n": 3, "seed": 0}),
    "TruthTable.subset": (TRUTH.subset, {"indices": [0, 1]}),
    "TruthTable.compared": (TRUTH.compared, {"what": "accuracy"}),
    "TruthTable.row": (TRUTH.row, {"digits": TRUTH.hashes[0]}),
    "CellColumns.__getitem__": (TRUTH.cells.__getitem__, {"index": 0}),
    "get": (spd.recipes.get, {"name": "demo"}),
    "load": (spd.recipes.load, {"name_or_path": "demo"}),
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
    **NASBENCH101,
    "score": (
        proxies.score,
        {
            "cells": CELLS[:1],
            "shape": SHAPE,
            "images": DISH.images[:2],
            "labels": DISH.labels[:2],
            "name": "snip",
            "threads": 1,
        },
    ),
    "NASLibPredictor": (NASLibPredictor, {}),
    "NASLibPredictor.fit": (
        lambda xtrain, ytrain: NASLIB.fit(xtrain, ytrain),
        {"xtrain": CELLS[:3], "ytrain": ACCURACY[:3]},
    ),
    "NASLibPredictor.query": (NASLIB.query, {"xtest": CELLS}),
    "NASLibPredictor.set_ss_type": (NASLIB.set_ss_type, {"ss_type": "nasbench101"}),
    "NASLibPredictor.set_hyperparams": (NASLIB.set_hyperparams, {"hyperparams": {"folds": 5}}),
    "read_table": (read_table, {"path": "nowhere.csv"}),
    "write_table": (write_table, {"path": "table.csv", "table": {}}),
    "require_writable": (require_writable, {"path": "table.csv"}),
    "CellTable.of": (CellTable.of, {"table": COLUMNS, "name": "table.csv"}),
    "CellTable.accuracy": (CELL_TABLE.accuracy, {}),
    "load_architecture": (natsbench.load_architecture, {"path": "nowhere"}),
    "load_cells": (natsbench.load_cells, {"path": "nowhere"}),
    "truth": (natsbench.truth, {"architectures": [ARCHITECTURE], "dataset": "cifar10", "epochs": 1}),
    "NatsArchitecture.select": (ARCHITECTURE.select, {"dataset": "cifar10", "epochs": 1}),
    "Cell": (spd.Cell, {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}),
    "Cell.from_bits": (spd.Cell.from_bits, {"vertices": 2, "edge_bits": 1, "op_codes": 0}),
    "Cell.from_json": (spd.Cell.from_json, {"record": CELLS[0].to_json()}),
    "Cell.has_edge": (CELLS[0].has_edge, {"source": 0, "target": 1}),
    "Cell.vertex_channels": (CELLS[0].vertex_channels, {"c_in": 8, "c_out": 8}),
    "Cell.conv_counts": (CELLS[0].conv_counts, {"channels": CELLS[0].vertex_channels(8, 8)}),
    "NatsCell": (spd.NatsCell, {"ops": NATS.ops}),
    "NatsCell.parse": (spd.NatsCell.parse, {"text": NATS.text}),
    "NatsCell.vertex_channels": (NATS.vertex_channels, {"c_in": 8, "c_out": 8}),
    "NatsCell.conv_counts": (NATS.conv_counts, {"channels": (8, 8, 8, 8)}),
    "cell_of": (spd.cell_of, {"given": CELLS[0]}),
    "NatsColumns": (NatsColumns, {"edge_ops": [[1] * 6]}),
    "NatsColumns.from_cells": (NatsColumns.from_cells, {"cells": [NATS]}),
    "NatsColumns.__getitem__": (NatsColumns([[1] * 6]).__getitem__, {"index": 0}),
    "Perceptron": (spd.Perceptron, {"slope": 1.0}),
    "PerceptronShape": (spd.PerceptronShape, {"hidden": 2}),
    "PerceptronColumns": (PerceptronColumns, {"slope": [1.0]}),
    "PerceptronColumns.from_cells": (PerceptronColumns.from_cells, {"cells": [spd.Perceptron(1.0)]}),
    "PerceptronColumns.__getitem__": (PerceptronColumns([1.0]).__getitem__, {"index": 0}),
    "TruthTable.embedded": (spd.TruthTable.embedded, {}),
    "write_truth": (
        write_truth,
        {
            "path": "truth.npz",
            "cells": [NATS],
            "budgets": [1],
            "seeds": [0],
            "arrays": {"test_accuracy": np.zeros((1, 1, 1))},
            "provenance": {},
        },
    ),
    "random_cells": (random_cells, {"n": 1, "seed": 0}),
    "sample_cells": (sample_cells, {"n": 1, "seed": 0}),
    "read_cells": (read_cells, {"path": "nowhere.json"}),
    "draw_trial": (draw_trial, {"truth": TRUTH, "pool_sizes": 6, "test_cells": 100, "seeds": 1, "seed": 0}),
    "trial_of_pools": (trial_of_pools, {"truth": TRUTH, "pools": [TRUTH.hashes[:6]], "test_cells": 100}),
    "trial_of_runs": (trial_of_runs, {"folders": ["nowhere"], "truth": TRUTH}),
    "Trial.pool": (TRIAL.pool, {"pool_size": 6, "seed": 0}),
    "judge": (judge, {"scores": np.arange(100.0), "accuracy": np.arange(100.0), "resamples": 2}),
    "precision_at": (precision_at, {"k": 2, "scores": np.ones((1, 9)), "accuracy": np.ones((1, 9))}),
    "Judged.estimate": (JUDGED.estimate, {"measure": "tau"}),
    "Judged.minus": (JUDGED.minus, {"other": JUDGED, "measure": "tau"}),
    "build_board": (
        build_board,
        {"trial": TRIAL, "recipe": ONE_EPOCH, "curves": SHORT, "folds": 1},
    ),
    "outcome_of": (outcome_of, {"goal": GOALS[0], "rows": [], "trial": TRIAL}),
    "build_truth": (build_truth, {"cells": CELLS[:1], "data": "nowhere.npz", "out": "out.npz", "shape": SHAPE}),
}


PUBLIC = (
    "spd_fast",
    "spd_fast.images",
    "spd_fast.nasbench101",
    "spd_fast.nasbench101.api",
    "spd_fast.natsbench",
    "spd_fast.predictors.features",
    "spd_fast.predictors.naslib",
    "spd_fast.predictors.proxies",
    "spd_fast.ranking.tables",
    "spd_fast.recipes",
    "spd_fast.scoreboard.board",
    "spd_fast.scoreboard.judge",
    "spd_fast.scoreboard.trial",
    "spd_fast.spaces.cell_columns",
    "spd_fast.spaces.cell_files",
    "spd_fast.spaces.nats_cell",
    "spd_fast.spaces.perceptron",
    "spd_fast.supernet",
    "spd_fast.truth.build",
    "spd_fast.truth.table",
)
"""The modules that users call; all that their `__all__` names is a door."""
RESULTS = {
    "Board", "CellTable", "DishSearchResult", "Estimate", "Evaluation", "FitResult", "Goal", "Hypergradient", "Judged", "Labelled", "MotifMetrics",
    "NatsArchitecture", "NatsRun", "Outcome", "Ranking", "Space", "Supernet", "SupernetScores", "Table", "TrainResult", "Trial",
}  # fmt: skip
"""Classes that the package makes; their constructors are no doors."""
ELSEWHERE = {
    "Board.row": "its name is looked up",
    "Dish.load": "test_a_path_is_a_text_or_a_path",
    "Dish.save": "test_a_path_is_a_text_or_a_path",
    "MotifShape.require_images": "the engine calls it with the shape of an array",
    "NASLibPredictor.pre_compute": "it does nothing",
    "NASLibPredictor.set_pre_computations": "it does nothing",
    "PerceptronShape.require_images": "the engine calls it with the shape of an array",
    "Ranking.save": "test_a_path_is_a_text_or_a_path",
    "Recipe": "pydantic checks every field, tests/recipes",
    "SPDPredictor.load": "test_a_path_is_a_text_or_a_path",
    "SPDPredictor.save": "test_a_path_is_a_text_or_a_path",
    "Space.__getitem__": "CellColumns.__getitem__",
    "Space.from_cells": "CellColumns.from_cells",
    "Space.row": "Table.row",
    "Space.sample": "Table.sample",
    "Supernet.load": "test_a_path_is_a_text_or_a_path",
    "Supernet.save": "test_a_path_is_a_text_or_a_path",
    "TruthTable.save": "test_a_path_is_a_text_or_a_path",
    "enumerate_space": "of nasbench101: tests/nasbench101, a right call takes seconds; of natsbench: it has no arguments",
    "names": "it has no arguments",
    "pool_of_run": "a run is opened first",
    "with_given": "the package calls it with tables of its own",
}
"""Doors that the walk leaves out, and why."""


def public_doors() -> list[str]:
    """The qualified names of all functions, constructors and methods with arguments that the public modules offer."""
    found = []
    for module in PUBLIC:
        home = importlib.import_module(module)
        for name in home.__all__:
            value = getattr(home, name)
            if not callable(value) or not value.__module__.startswith("spd_fast"):
                continue
            if not inspect.isclass(value):
                found.append(value.__qualname__)
            elif not issubclass(value, Exception):
                found += [name] * (name not in RESULTS)
                found += [f"{name}.{method}" for method in methods_of(value)]
    return sorted(set(found))


def methods_of(kind: type) -> list[str]:
    """The names of the public methods of a class that take arguments, and `__getitem__`. Those of foreign classes are left out."""
    names = []
    for name, method in inspect.getmembers(kind, callable):
        own = getattr(method, "__module__", "") or ""
        if (
            (name.startswith("_") and name != "__getitem__")
            or not own.startswith("spd_fast")
            or inspect.isclass(method)
        ):
            continue
        if set(inspect.signature(method).parameters) - {"self"}:
            names.append(name)
    return names


def test_no_door_is_forgotten() -> None:
    doors = public_doors()
    assert len(doors) > 90
    assert not [name for name in doors if name not in DOORS and name not in ELSEWHERE], "add them to DOORS"
    assert not [name for name in ELSEWHERE if name in DOORS or name not in doors], "remove them from ELSEWHERE"


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
        SUPERNET.save,
        Supernet.load,
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
            except (TypeError, ValueError, IndexError, OSError, api.OutOfDomainError, RunFolderError) as error:
                if FOREIGN.search(str(error)) or "\n" in str(error):
                    strange.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
            except Exception as error:
                strange.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
    assert not strange, "\n".join(strange)
    assert {*os.listdir(tmp_path)} <= {"7", right.get("path")}


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20].split("\n")[0])
@pytest.mark.parametrize(
    "columns",
    [
        ["cell"],
        ["hash"],
        ["nats_index"],
        ["matrix", "ops"],
        ["ops", "matrix"],
        ["vertices", "edge_bits", "op_codes"],
        ["acc"],
    ],
)
def test_every_value_of_a_table(columns: list[str], value: Any) -> None:
    """The first of the columns has the value, the others a right one."""
    right = {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"], "vertices": 2, "edge_bits": 1, "op_codes": 0}
    table = {name: [right.get(name)] for name in columns} | {columns[0]: [value]}
    if columns == ["acc"]:
        table = COLUMNS | table
    told = ""
    try:
        CellTable.of(table, "table.csv").accuracy("acc" if columns == ["acc"] else None)
    except ValueError as error:
        told = str(error)
    assert not FOREIGN.search(told)
    assert "\n" not in told
