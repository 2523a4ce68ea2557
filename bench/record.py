"""A record of everything that the package computes, as digests. Comparing the records of two commits shows whether a change of the code
changed a result.

    SPD_FAST_ISA=avx2 python bench/record.py before.json         # at one commit
    SPD_FAST_ISA=avx2 python bench/record.py after.json          # at another commit
    python bench/record.py --compare before.json after.json      # names what differs; the exit status is 1 if anything does

A record holds a digest for each named result: a SHA-256 of type, shape and bytes of an array. All NaNs count as the same NaN. The record
covers the engine (training, gradients, hypergradients, proxies) in both element types, and everything that is built on it: runs of the
outer loop, scores, a dish-search, truths, predictors, a scoreboard, structural features, the enumerated space and the truths that ship
with the package. Times, paths, versions and the bytes of files are not recorded, so that the form of files may change as long as their
numbers stay.

Results are equal for the same commit, instruction set (`SPD_FAST_ISA`), compiler and libraries, with any number of threads. Each commit is
recorded by the script of that commit. `PLACES` says where names lie that moved between modules. `RENAMED` gives results that were renamed
their former names, so that records from before and after can be compared.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# For names that are not in `spd_fast` itself: the modules that have them or had them; `module:name` if the name is or was another one.
PLACES: dict[str, tuple[str, ...]] = {
    "CellColumns": ("spd_fast.cell", "spd_fast.spaces.cell_columns"),
    "count_flops_table": ("spd_fast.motif",),
    "count_parameters_table": ("spd_fast.motif",),
    "initial_parameters": ("spd_fast.train", "spd_fast.engine.initial"),
    "learning_rates": ("spd_fast.train", "spd_fast.engine.training", "spd_fast.learnables.rates"),
    "pack_motifs": ("spd_fast.train", "spd_fast.engine.gradients"),
    "read_packed": ("spd_fast.train:read_motifs", "spd_fast.engine.gradients:read_motifs"),
    "parameter_gradient": ("spd_fast.train", "spd_fast.engine.gradients"),
    "logit_gradient": ("spd_fast.train", "spd_fast.engine.probes"),
    "activation_agreements": ("spd_fast.train", "spd_fast.engine.probes"),
    "PROXIES": ("spd_fast.proxies", "spd_fast.predictors.proxies"),
    "proxy": ("spd_fast.proxies:score", "spd_fast.predictors.proxies:score"),
    "motif_metrics": ("spd_fast.torch",),
    "LOSSES": ("spd_fast.losses", "spd_fast.outer.losses"),
    "read_run": ("spd_fast.runs:read", "spd_fast.outer.runs:read"),
    "recipe_names": ("spd_fast.recipes:names", "spd_fast.recipes.known:names"),
    "recipe": ("spd_fast.recipes:get", "spd_fast.recipes.known:get"),
    "structural_features": ("spd_fast.features", "spd_fast.predictors.features"),
    "adjacency_encoding": ("spd_fast.features", "spd_fast.predictors.features"),
    "path_encoding": ("spd_fast.features", "spd_fast.predictors.features"),
    "enumerate_space": ("spd_fast.nasbench101",),
    "convert": ("spd_fast.nasbench101",),
    "random_cells": ("spd_fast.truth_build", "spd_fast.spaces.cell_files"),
    "sample_cells": ("spd_fast.truth_build", "spd_fast.spaces.cell_files"),
    "ImageData": ("spd_fast.truth_build", "spd_fast.images"),
    "build_truth": ("spd_fast.truth_build", "spd_fast.truth.build"),
    "draw_trial": ("spd_fast.scoreboard", "spd_fast.scoreboard.trial"),
    "build_board": ("spd_fast.scoreboard", "spd_fast.scoreboard.board"),
    "command_line": ("spd_fast.cli:app",),
    "describe_machine": ("spd_fast.runs", "spd_fast.base.machine"),
}
# Parts of names of results: the present word, and the word in records.
RENAMED: dict[str, str] = {
    "validation_cells": "kept_out",
    "validation_tau": "kept_tau",
    "validation_tau_start": "kept_tau_start",
}
# Results that differ from run to run.
TIMES = {"seconds", "wall", "init_seconds", "query_seconds"}


def find(name: str) -> Any:
    """Return the object of this name from the first place that has it."""
    places = PLACES.get(name, ("spd_fast",))
    for place in places:
        module, _, other = place.partition(":")
        try:
            return getattr(importlib.import_module(module), other or name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(
        f"{name} is in none of {', '.join(places)}: add the module that has it now to PLACES in {__file__}"
    )


class Record:
    """Digests of results by name."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.digests: dict[str, str] = {}

    def add(self, name: str, value: Any) -> None:
        """Record an array or a number, or everything in a mapping, a sequence or a dataclass of them, but no times.

        A mapping in a sequence, such as the weights of a motif, becomes one result.
        """
        if value is None:
            return
        if dataclasses.is_dataclass(value):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            for key, each in value.items():
                if key not in TIMES:
                    self.add(f"{name}/{RENAMED.get(str(key), key)}", each)
            return
        if isinstance(value, list | tuple) and not all(each is None or np.isscalar(each) for each in value):
            for k, each in enumerate(value):
                if isinstance(each, Mapping):
                    parts = [f"{key} {_digest(array)[0]}" for key, array in each.items()]
                    self._keep(f"{name}/{k}", _digest("\n".join(parts))[0], f"{len(each)} arrays")
                else:
                    self.add(f"{name}/{k}", each)
            return
        self._keep(name, *_digest(value))

    def _keep(self, name: str, digest: str, what: str) -> None:
        if name in self.digests:
            raise ValueError(f"{name} is recorded twice")
        self.digests[name] = f"{digest} {what}"


def _digest(value: Any) -> tuple[str, str]:
    """Return the digest of an array, a text, or a list of numbers in which None stands for NaN; and a description of it."""
    if isinstance(value, str):
        value = np.frombuffer(value.encode(), np.uint8)
    if isinstance(value, list | tuple) and None in value:
        value = np.array(value, np.float64)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"found {array.dtype}, expected numbers or text")
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()
    what = f"{array.dtype} {array.shape}"
    return digest, f"{what} of mean {float(array.mean(dtype=np.float64))!r}" if array.size else what


# ---- the engine


def cells() -> list[Any]:
    """Return three cells that have every operation, projections of the input, sums, vertices of different widths, and a path
    through seven vertices."""
    cell = find("Cell")
    c3, c1, pool = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
    return [
        cell(["01111", "00101", "00010", "00001", "00000"], ["input", c3, c1, pool, "output"]),
        cell(
            ["0100110", "0010000", "0001001", "0000100", "0000010", "0000001", "0000000"],
            ["input", c1, c3, pool, c3, c1, "output"],
        ),
        cell(["0110", "0001", "0001", "0000"], ["input", c3, c3, "output"]),
    ]


def nats_cells() -> list[Any]:
    """Return three cells with operations on edges."""
    texts = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|",
        "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
    )
    return [find("NatsCell").parse(text) for text in texts]


def slopes() -> list[Any]:
    """Return three perceptrons."""
    return [find("Perceptron")(slope) for slope in (0.3, 1.0, 2.01)]


def dish(
    n: int, n_valid: int, sides: tuple[int, int], *, classes: int = 10, channels: int = 3, soft: bool = False
) -> Any:
    """Return a dish of random images in float32, from a bit generator that is the same in every version of NumPy."""
    rng = np.random.Generator(np.random.PCG64(n + 1000 * sides[1]))

    def drawn(count: int) -> tuple[Any, Any]:
        images = rng.uniform(-1.7, 1.7, (count, channels, *sides)).astype(np.float32)
        if soft:
            return images, rng.uniform(0.05, 0.95, (count, classes)).astype(np.float32)
        return images, rng.integers(0, classes, count)

    return find("Dish")(*drawn(n), *(drawn(n_valid) if n_valid else ()))


def shapes() -> dict[str, Any]:
    """Return the paper's motif shapes by letter."""
    return {letter: find(f"MOTIF_{letter}") for letter in "ABC"}


def engine_training(record: Record) -> None:
    """Record the inner loop: every motif of the paper, other cells and perceptrons, and every option that changes a number."""
    train, adam, sgd, rmsprop = (find(name) for name in ("train_motifs", "Adam", "SGD", "RMSProp"))
    everything = {"record": ["step_loss", "step_accuracy"], "threads": record.threads}
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 10, "optimizer": adam(lr=3e-3, weight_decay=1e-4)}
    small = find("MotifShape")(6, stacks=2, classes=4)
    for dtype in ("float32", "float64"):
        how = {**everything, "dtype": dtype}
        for letter, shape in shapes().items():
            for side in (16, 8):
                data = dish(24, 9, (side, side))
                record.add(f"train/{letter}/{side}/{dtype}", train(cells(), shape, data, **plain, **how))
            record.add(f"train/{letter}/alone/{dtype}", train(cells()[:1], shape, data, **plain, **how))
            record.add(f"train/{letter}/nats/{dtype}", train(nats_cells(), shape, data, **plain, **how))
        for name, sides in (("odd", (9, 7)), ("least", (4, 4)), ("large", (21, 32))):
            data = dish(11, 5, sides, classes=4)
            record.add(f"train/sides/{name}/{dtype}", train([*cells(), *nats_cells()], small, data, **plain, **how))
        grey = dish(12, 5, (8, 8), classes=4, channels=1, soft=True)
        record.add(
            f"train/soft labels/{dtype}",
            train([*cells(), *nats_cells()], dataclasses.replace(small, image_channels=1), grey, **plain, **how),
        )
        for loss in ("softmax", "binary"):
            shape = find("PerceptronShape")(5, layers=2, classes=4, loss=loss)
            record.add(f"train/perceptron/{loss}/{dtype}", train(slopes(), shape, grey, **plain, **how))
        data = dish(24, 9, (8, 8), classes=4)
        first = train([*cells(), *nats_cells()], small, data, **plain, **how)
        options: dict[str, dict[str, Any]] = {
            "init motif": {"init": "motif", "seed": 5, "replicate": 2},
            "init given": {"init": first.parameters},
            "scales": {"initial_scales": [0.5, 2.0, 1.5, 3.0]},
            "nasbench101 weights": {"init_distribution": "nasbench101"},
            "normal weights": {"init_distribution": "normal"},
            "cosine": {"schedule": "cosine"},
            "rates": {"schedule": np.linspace(1e-2, 0, 6)},
            "order": {"order": [np.arange(24), np.arange(24)[::-1]]},
            "sgd": {"optimizer": sgd(lr=0.05)},
            "nesterov": {"optimizer": sgd(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)},
            "rmsprop": {"optimizer": rmsprop(lr=0.02)},
            "drop last": {"drop_last": True, "batch_size": 7},
            "running statistics": {"statistics": "running", "batch_norm_momentum": 0.3},
            "strict": {"direct_convolutions": True},
            "no metrics": {"evaluate": False},
            "no epochs": {"epochs": 0},
            "diverging": {"optimizer": sgd(lr=1e30)},
        }
        for name, changes in options.items():
            record.add(
                f"train/{name}/{dtype}", train([*cells(), *nats_cells()], small, data, **{**plain, **how, **changes})
            )
        record.add(
            f"initial/perceptron/{dtype}",
            find("initial_parameters")(
                slopes()[0], find("PerceptronShape")(5), image_shape=(1, 3, 4), seed=4, dtype=dtype
            ),
        )
    for steps in (1, 7):
        record.add(f"rates/{steps}", find("learning_rates")("cosine", 0.1, steps))


def engine_gradients(record: Record) -> None:
    """Record gradients of trained motifs with their weights held fixed."""
    train, gradient, packed = find("train_motifs"), find("motif_gradient"), find("pack_motifs")
    small = find("MotifShape")(6, stacks=2, classes=4)
    candidates = [*cells(), *nats_cells()]
    for dtype in ("float32", "float64"):
        how = {"threads": record.threads, "dtype": dtype}
        for name, shape, data in (
            ("C", shapes()["C"], dish(20, 0, (16, 16))),
            ("B", shapes()["B"], dish(20, 0, (8, 8), soft=True)),
            ("small", small, dish(15, 0, (9, 7), classes=4, soft=True)),
        ):
            optimizer = find("Adam")(lr=3e-3)
            trained = train(candidates, shape, data, epochs=1, batch_size=10, optimizer=optimizer, **how).parameters
            inputs = (candidates, shape, data.images, data.labels, trained)
            for direct_convolutions in (False, True):
                record.add(
                    f"gradient/weights/{name}/{direct_convolutions}/{dtype}",
                    find("parameter_gradient")(*inputs, direct_convolutions=direct_convolutions, **how),
                )
                for metric in ("probability", "loss"):
                    found = gradient(*inputs, metric=metric, direct_convolutions=direct_convolutions, **how)
                    record.add(f"gradient/{metric}/{name}/{direct_convolutions}/{dtype}", found)
            weighted = gradient(*inputs, factors=np.linspace(-1, 1, len(candidates)), **how)
            record.add(f"gradient/weighted/{name}/{dtype}", weighted)
            motifs = packed(candidates, shape, trained, data.images.shape[1:], dtype=dtype)
            for rows in (range(len(motifs)), [4, 1]):
                for metric in ("probability", "loss"):
                    reading = find("read_packed")(
                        motifs.take(rows), data.images, data.labels, metric=metric, threads=record.threads
                    )
                    record.add(f"reading/{metric}/{name}/{len(rows)}/{dtype}", reading)
            some = (candidates, shape, data.images, trained)
            record.add(f"logit gradient/{name}/{dtype}", find("logit_gradient")(*some, **how))
            record.add(f"agreements/{name}/{dtype}", find("activation_agreements")(*some, **how))
        for shape in (find("PerceptronShape")(5, classes=4, loss=loss) for loss in ("softmax", "binary")):
            data = dish(15, 0, (3, 4), classes=4, channels=1, soft=True)
            trained = train(slopes(), shape, data, epochs=1, **how).parameters
            for metric in ("probability", "loss"):
                found = gradient(slopes(), shape, data.images, data.labels, trained, metric=metric, **how)
                record.add(f"gradient/{metric}/perceptron {shape.loss}/{dtype}", found)


def engine_hypergradients(record: Record) -> None:
    """Record hypergradients."""
    hypergradient, adam, sgd = find("motif_hypergradient"), find("Adam"), find("SGD")
    small = find("MotifShape")(6, stacks=2, classes=4)
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 10, "optimizer": adam(lr=3e-3, weight_decay=1e-4)}
    for dtype in ("float32", "float64"):
        how = {"threads": record.threads, "dtype": dtype}
        for letter, shape in shapes().items():
            found = hypergradient([cells()[0], *nats_cells()[:1]], shape, dish(20, 9, (8, 8)), **plain, **how)
            record.add(f"hypergradient/{letter}/{dtype}", found)
        record.add(
            f"hypergradient/C at 16/{dtype}",
            hypergradient(cells(), shapes()["C"], dish(20, 0, (16, 16)), direct_convolutions=False, **plain, **how),
        )
        data = dish(24, 9, (8, 8), classes=4, soft=True)
        options: dict[str, dict[str, Any]] = {
            "as it is": {},
            "loss": {"metric": "loss", "metric_weight": -2.0},
            "steps weighted": {"step_weights": np.linspace(-1, 1, 6), "metric_weight": 0.0},
            "window": {"window": 2},
            "few steps": {"steps": 4},
            "no memory": {"memory_mib": 0.0},
            "fast": {"direct_convolutions": False},
            "nesterov": {"optimizer": sgd(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)},
            "rmsprop": {"optimizer": find("RMSProp")(lr=0.02)},
            "rates": {"schedule": np.linspace(1e-2, 1e-3, 6)},
            "drop last": {"drop_last": True, "batch_size": 7},
            "scales": {"initial_scales": [0.5, 2.0, 1.5, 3.0], "init": "motif", "init_distribution": "nasbench101"},
        }
        for name, changes in options.items():
            found = hypergradient([cells()[0], nats_cells()[0]], small, data, **{**plain, **how, **changes})
            record.add(f"hypergradient/{name}/{dtype}", found)
        for loss in ("softmax", "binary"):
            shape = find("PerceptronShape")(5, classes=4, loss=loss)
            data = dish(15, 7, (3, 4), classes=4, channels=1, soft=True)
            for metric in ("probability", "loss"):
                found = hypergradient(slopes(), shape, data, metric=metric, **plain, **how)
                record.add(f"hypergradient/perceptron/{loss}/{metric}/{dtype}", found)


def engine_in_torch(record: Record) -> None:
    """Record the engine as a PyTorch function, and the outer losses with their gradients."""
    import torch

    shape = find("MotifShape")(6, stacks=2, classes=4)
    data = dish(24, 9, (8, 8), classes=4, soft=True)
    for metric, gradient in (("probability", "direct"), ("loss", "unrolled"), ("training_loss", "unrolled")):
        on = {name: torch.tensor(np.asarray(getattr(data, name)), requires_grad=True) for name in ("images", "labels")}
        if metric == "training_loss":
            on["step_weights"] = torch.linspace(0.1, 1.0, 6, dtype=torch.float64, requires_grad=True)
            on["rates"] = torch.linspace(1e-2, 1e-3, 6, dtype=torch.float64, requires_grad=True)
            on["initial_scales"] = torch.tensor([0.5, 2.0, 1.5, 3.0], dtype=torch.float64, requires_grad=True)
        images, labels = on["images"], on["labels"]
        others = {name: tensor for name, tensor in on.items() if name not in ("images", "labels")}
        how = {"metric": metric, "gradient": gradient, "epochs": 2, "batch_size": 10, "threads": record.threads}
        values = find("motif_metrics")(images, labels, [cells()[0], nats_cells()[0]], shape=shape, **others, **how)
        (values * torch.tensor([1.0, -2.0])).sum().backward()
        record.add(f"torch/{metric}", values.detach().numpy())
        record.add(f"torch/{metric}/gradient", {name: t.grad.numpy() for name, t in on.items() if t.grad is not None})
    rng = np.random.Generator(np.random.PCG64(2))
    accuracy = torch.tensor(rng.uniform(0.8, 0.95, 12))
    for name, loss in find("LOSSES").items():
        metric_values = torch.tensor(rng.uniform(0, 1, 12), requires_grad=True)
        value = loss(metric_values, accuracy)
        value.backward()
        record.add(f"losses/{name}", [value.detach().numpy(), metric_values.grad.numpy()])


def proxies(record: Record) -> None:
    """Record zero-cost proxies."""
    small = find("MotifShape")(6, stacks=2, classes=4)
    data = dish(12, 0, (8, 8), classes=4)
    for dtype in ("float32", "float64"):
        for name in find("PROXIES"):
            how = {"threads": record.threads, "dtype": dtype, "seed": 3}
            found = find("proxy")([*cells(), *nats_cells()], small, data.images, data.labels, name, **how)
            record.add(f"proxies/{name}/{dtype}", found)


# ---- what is built on the engine


def recipes() -> dict[str, Any]:
    """Return small recipes that use every part of the outer loop: those of the tests, and some more."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    small = importlib.import_module("small")
    shared = {"inner.init": "shared", "inner.redraw": False}
    read = {"outer.metric": "loss", "outer.ranking": "metric"}
    once = small.RECIPE.replace({"dish.valid_images": 6, "outer.learn": ["valid_images"], **read})
    return {
        "small": small.RECIPE,
        "learning": small.LEARNING,
        "curve": small.CURVE,
        "redrawn": once,
        "once": once.replace({**shared, "outer.learn": ["valid_images", "valid_labels"], "outer.schedule": "steps"}),
        "ridge": small.CURVE.replace({"outer.step_weights": "ridge", "outer.check_every": 2}),
        "evolved": small.CURVE.replace(
            {"outer.learn": ["initial_scales"], "outer.optimizer": {"name": "cmaes", "sigma": 0.2, "population": 4}}
        ),
        "generated": small.RECIPE.replace({"dish.generator": 2, "outer.gradient": "unrolled", **shared, **read}),
        "split": small.LEARNING.replace({"inner.split_images": True, "outer.keep": "last", "dtype": "float64"}),
        "windowed": small.RECIPE.replace(
            {
                "outer.gradient": "unrolled",
                "outer.window": 4,
                "inner.optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
            }
        ),
        "slopes": find("recipe")("rawal_slope").replace(
            {"outer.epochs": 4, "inner.epochs": 20, "outer.cells": 5, "outer.pool": None}
        ),
    }


def pool(recipe_name: str) -> tuple[list[Any], Any]:
    """Return candidates for a recipe, with made-up accuracies."""
    accuracy = np.random.Generator(np.random.PCG64(3)).uniform(0.8, 0.95, 12)
    if recipe_name == "slopes":
        return [find("Perceptron")(slope) for slope in np.linspace(0.1, 2.0, 12)], accuracy
    return [*find("random_cells")(9, 3), *nats_cells()], accuracy


def runs(record: Record) -> None:
    """Record runs of the outer loop from their folders, the scores of cells, and one run of the command line."""
    for name, recipe in recipes().items():
        candidates, accuracy = pool(name)
        with tempfile.TemporaryDirectory() as folder:
            fit = find("fit_dish")(candidates, accuracy, recipe, run=Path(folder) / "run", threads=record.threads)
            add_run(record, f"runs/{name}", Path(folder) / "run")
            record.add(f"runs/{name}/pool", [np.array(fit.training_cells), np.array(fit.validation_cells)])
        scores = find("score_cells")(fit.dish, recipe, candidates, threads=record.threads)
        record.add(f"runs/{name}/scores", scores)
    from typer.testing import CliRunner

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        find("TruthTable").load().sample(10, 0).save(folder / "truth.npz")
        (folder / "recipe.json").write_text(recipes()["learning"].to_json(), encoding="utf-8")
        files = {"--recipe": "recipe.json", "--truth": "truth.npz", "--out": "run"}
        words = ["run", *(word for option, file in files.items() for word in (option, str(folder / file)))]
        result = CliRunner().invoke(find("command_line"), words)
        if result.exit_code:
            raise SystemExit(f"spd-fast {' '.join(words)} failed: {result.output}")
        add_run(record, "runs/by command", folder / "run")


def add_run(record: Record, name: str, folder: Path) -> None:
    """Record the dishes of a run folder and the numbers of its metrics."""
    run = find("read_run")(folder)
    for when, each in zip(("start", "learned"), run.dishes(), strict=True):
        record.add(f"{name}/{when}", each)
    history = run.records()
    numbers = [field for field in history[0] if field not in {"cells", "skipped", *TIMES}]
    for field in numbers:
        values = np.array([epoch[field] for epoch in history], np.float64)
        record.add(f"{name}/metrics/{RENAMED.get(field, field)}", values)
    record.add(f"{name}/metrics/cells", "".join(each for epoch in history for each in epoch["cells"]))


def known_recipes(record: Record) -> None:
    """Record the numbers of every recipe that comes with the package."""

    def numbers(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: numbers(each) for key, each in value.items()}
        is_number = isinstance(value, bool | int | float)
        return (
            value
            if is_number or (isinstance(value, list) and not any(isinstance(each, str) for each in value))
            else None
        )

    for name in find("recipe_names")():
        record.add(f"recipes/{name}", numbers(json.loads(find("recipe")(name).to_json())))


def search(record: Record) -> None:
    """Record a dish-search on cells and one on slopes."""
    for name in ("small", "slopes"):
        candidates, accuracy = pool(name)
        how = {"max_labelled": 9, "start": 5, "per_round": 2, "seed": 3, "threads": record.threads}
        with tempfile.TemporaryDirectory() as folder:
            result = find("dish_search")(candidates, accuracy, recipes()[name], folder=Path(folder) / "search", **how)
        for k, each in enumerate(result.labelled):
            record.add(
                f"search/{name}/{k}",
                {"row": each.row, "accuracy": each.accuracy, "round": each.round, "score": each.score},
            )


def made_up_images(classes: int, of_each: int, channels: int, side: int) -> tuple[Any, Any]:
    """Return made-up images of bytes, with labels."""
    rng = np.random.Generator(np.random.PCG64(7))
    labels = np.repeat(np.arange(classes), of_each)
    return rng.integers(0, 200, (len(labels), channels, side, side), np.uint8) + 5 * labels[:, None, None, None].astype(
        np.uint8
    ), labels


def truth(record: Record) -> None:
    """Record truths that are built on small images."""
    images, labels = made_up_images(3, 20, 1, 9)
    shape = find("MotifShape")(6, classes=3, image_channels=1)
    how: dict[str, Any] = {
        "budgets": (1, 3),
        "seeds": (0, 5),
        "batch_size": 8,
        "image_size": 6,
        "n_train": 30,
        "n_valid": 11,
        "n_test": 13,
    }
    kinds = {
        "cells": (find("random_cells")(6, 4), shape, {"optimizer": find("Adam")(lr=1e-2)}),
        "nats": (nats_cells(), shape, {"init": "shared", "init_distribution": "nasbench101"}),
        "slopes": (slopes(), find("PerceptronShape")(4, classes=3), {"optimizer": find("SGD")(lr=0.1, momentum=0.9)}),
    }
    for name, (candidates, around, more) in kinds.items():
        data = find("ImageData")(images, labels, None, None, "made up")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "truth.npz"
            find("build_truth")(candidates, data, path, shape=around, threads=record.threads, **how, **more)
            add_truth(record, f"truth/{name}", find("TruthTable").load(path))


def add_truth(record: Record, name: str, table: Any) -> None:
    """Record every array of a truth, and the accuracies and losses that it returns."""
    record.add(f"{name}/measured", table.measurements)
    record.add(f"{name}/axes", [np.array(table.budgets), np.array(table.seeds)])
    record.add(f"{name}/hashes", "".join(table.hashes))
    record.add(f"{name}/columns", {column: getattr(table.cells, column) for column in table.cells.names})
    record.add(f"{name}/read", {"accuracy": table.accuracy, "accuracy_sd": table.accuracy_sd, "loss": table.loss})


def tables(record: Record) -> None:
    """Record the truths that ship with the package, drawn cells, the enumerated space, features of cells, and a converted file
    of the benchmark."""
    table = find("TruthTable")
    shipped = table.load()
    add_truth(record, "shipped/cells", shipped)
    add_truth(record, "shipped/slopes", table.embedded(find("Perceptron")))
    record.add("drawn/truth", "".join(shipped.sample(50, 4).hashes))
    record.add("drawn/split", "/".join("".join(part.hashes) for part in shipped.split(40, 1)))
    record.add("drawn/random", "".join(cell.module_hash for cell in find("random_cells")(200, 5)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.npz"
        shipped.save(path)
        record.add("drawn/sample", "".join(cell.module_hash for cell in find("sample_cells")(40, 6, path)))
    space = find("enumerate_space")(threads=record.threads)
    names = ("vertices", "edge_bits", "op_codes", "module_hash", "trainable_parameters")
    record.add("space", {name: getattr(space, name) for name in names})
    rows = space.sample(1000, 8)
    record.add("drawn/space", rows)
    some = space[rows]
    for name in ("structural_features", "adjacency_encoding", "path_encoding"):
        record.add(f"features/{name}", find(name)(some))
    columns = (some.vertices, some.edge_bits, some.op_codes)
    for letter, shape in shapes().items():
        record.add(f"features/parameters/{letter}", find("count_parameters_table")(*columns, shape))
        record.add(f"features/flops/{letter}", find("count_flops_table")(*columns, shape, (21, 32)))
    recipes()  # it adds the folder of tests to the search path
    files = importlib.import_module("nasbench_files")
    rng = np.random.default_rng(9)
    payloads = [
        files.payload(some[row], epochs, files.random_values(rng))
        for row in range(5)
        for epochs in (4, 108)
        for _ in range(3)
    ]
    with tempfile.TemporaryDirectory() as folder:
        written = files.write(Path(folder) / "made.tfrecord", payloads)
        converted = find("convert")(written, Path(folder) / "table.npz", threads=record.threads)
        record.add("converted/cells", "".join(cell.module_hash for cell in converted))
        for metric in ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy"):
            record.add(f"converted/{metric}", [converted.column(metric, epochs=epochs) for epochs in (4, 108)])
        record.add("converted/query", [tuple(converted.query(cell, epochs=108, repeat="mean")) for cell in converted])


def predictors(record: Record) -> None:
    """Record predictors of every kind: what they learned and what they predict."""
    predictor = find("SPDPredictor")
    labelled, others = find("TruthTable").load().split(30, 0)
    asked = others.sample(20, 1)
    small, curves = recipes()["small"], recipes()["redrawn"]
    kinds: dict[str, dict[str, Any]] = {
        "structure": {"features": ("structure",)},
        "curves": {"features": ("structure", "curves"), "curves": curves},
        "dish": {"features": ("dish",), "recipe": small, "folds": 2},
        "all": {"features": ("structure", "curves", "dish"), "recipe": curves, "curves": curves, "folds": 2},
        "pure dish": {"variant": "dish", "recipe": recipes()["ridge"]},
    }
    for name, settings in kinds.items():
        fitted = predictor(**settings, threads=record.threads).fit(labelled.cells, labelled.accuracy)
        record.add(f"predictors/{name}/answers", fitted.query(asked.cells))
        record.add(f"predictors/{name}/dishes", [each.dish for each in fitted.dishes_])
        record.add(f"predictors/{name}/process", fitted.process_)
        record.add(f"predictors/{name}/score", fitted.score(asked.cells, asked.accuracy))
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(Path(folder) / "predictor.npz")
            record.add(f"predictors/{name}/loaded", predictor.load(Path(folder) / "predictor.npz").query(asked.cells))


def board(record: Record) -> None:
    """Record a scoreboard with made-up images: the scores of every row, and how they are judged."""
    trial = find("draw_trial")(find("TruthTable").load(), pool_sizes=(8, 12), test_cells=100, seeds=2)
    images, labels = made_up_images(10, 8, 2, 5)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "images.npz", images=images, labels=labels)
        built = find("build_board")(
            trial,
            recipes()["small"],
            recipes()["redrawn"],
            folds=2,
            images=Path(folder) / "images.npz",
            folder=Path(folder) / "board",
            threads=record.threads,
        )
    for row in built.rows:
        name = f"board/{RENAMED.get(row.name, row.name)}/{row.pool_size}"
        record.add(f"{name}/scores", row.scores)
        record.add(f"{name}/judged", row.judged)


PARTS: dict[str, Callable[[Record], None]] = {
    "training": engine_training,
    "gradients": engine_gradients,
    "hypergradients": engine_hypergradients,
    "torch": engine_in_torch,
    "proxies": proxies,
    "runs": runs,
    "recipes": known_recipes,
    "search": search,
    "truth": truth,
    "tables": tables,
    "predictors": predictors,
    "board": board,
}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for every result that differs between two records or is in only one of them."""
    lines = []
    for name in sorted(before["results"].keys() | after["results"].keys()):
        one, other = (each["results"].get(name) for each in (before, after))
        if one is None or other is None:
            lines.append(f"{name}: only in the {'second' if one is None else 'first'} record")
        elif one != other:
            lines.append(f"{name}: {one.partition(' ')[2]} before, {other.partition(' ')[2]} after")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, help="record to write (.json)")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="RECORD", help="two records to compare instead")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="record only these parts")
    parser.add_argument("--threads", type=int, help="default: all processors; the results do not depend on it")
    arguments = parser.parse_args()
    if arguments.compare:
        before, after = (json.loads(path.read_text(encoding="utf-8")) for path in arguments.compare)
        lines = compare(before, after)
        print(*lines, sep="\n", end="\n" if lines else "")
        print(f"{len(lines)} of {len(before['results'].keys() | after['results'].keys())} results differ")
        return int(bool(lines))
    if arguments.out is None:
        parser.error("expected a file to write, or --compare with two records")
    record = Record(arguments.threads)
    for name in arguments.parts:
        PARTS[name](record)
    content = {"about": find("describe_machine")(), "results": record.digests}
    arguments.out.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
    print(f"{len(record.digests)} results in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
