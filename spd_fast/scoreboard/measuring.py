"""The measurements that the rows of a scoreboard are made of. Each is made once, when it is first needed, and saved."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

import spd_fast._core as _core
from spd_fast.base.files import load_arrays, save_arrays
from spd_fast.base.progress import part_of
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.sums import sum_of
from spd_fast.base.types import Array, NamedProgress, Progress
from spd_fast.dish import Dish
from spd_fast.outer.start import source_digest, start_dish
from spd_fast.predictors.features import structural_features
from spd_fast.predictors.readings import LearnedDish, learn_dish, learn_folds, mean_scaled, read_all
from spd_fast.recipes.settings import AdamSettings, DishSettings, InnerSettings, MotifSettings, OuterSettings, Recipe
from spd_fast.scoreboard.trial import Trial
from spd_fast.spaces.candidate import Candidate
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.supernet import RECIPE, train_supernet

REMEDY: Final = "choose another folder"
LOW_FIDELITY_NETWORK: Final = Recipe(
    name="low_fidelity",
    summary="Low-fidelity training: a small network is trained briefly and judged by its validation accuracy.",
    motif="B",
    dish=DishSettings(images=500, valid_images=200),
    inner=InnerSettings(epochs=4, optimizer=AdamSettings(lr=5e-3, weight_decay=1e-4), schedule="cosine"),
    outer=OuterSettings(metric="loss", ranking="accuracy", learn=("valid_images",)),
)
PROXY_NETWORK: Final = Recipe(
    name="proxies",
    summary="Zero-cost proxies: the benchmark's network with fewer channels, and one batch of images.",
    motif=MotifSettings(stem_channels=16, stacks=3, cells_per_stack=3),
    dish=DishSettings(images=60),
)
SHARED_NETWORK: Final = RECIPE
OWN_STEPS: Final = 20
"""Steps that every cell is trained for from its slice of the shared weights, for the row that has some."""


# ---- measuring


@dataclass(frozen=True, eq=False)
class _Features:
    """The features of one group, of a pool and of the test cells, with their cost in seconds."""

    pool: Array
    test_cells: Array
    init_seconds: float
    query_seconds: float


@dataclass(frozen=True, eq=False)
class Measuring:
    """Makes the measurements of a board, each when it is first needed."""

    trial: Trial
    recipe: Recipe
    curves: Recipe
    given: Sequence[LearnedDish] | None
    folds: int
    images: str | os.PathLike[str] | None
    threads: int | None
    parts: "Parts"
    progress: NamedProgress | None
    proxy_network: Recipe = PROXY_NETWORK
    low_fidelity_network: Recipe = LOW_FIDELITY_NETWORK
    shared_network: Recipe = SHARED_NETWORK

    def dish(self, pool_size: int, seed: int) -> LearnedDish:
        """Return the learned dish of one pool, which was given or is learned here."""
        if self.given is not None:
            return self.given[seed]
        recipe, pool = self._seeded(seed), self.trial.pool(pool_size, seed)

        def measure(report: Progress) -> dict[str, Array]:
            learned = learn_dish(pool.cells, pool.accuracy, recipe, threads=self.threads, progress=report)
            return {**learned.dish.arrays(), "seconds": np.array(learned.seconds)}

        doing = f"learning dish {seed} from {pool_size} labelled cells"
        arrays = dict(self.parts.keep(f"dish-{pool_size}-{seed}", measure, self._report(doing)))
        seconds = float(arrays.pop("seconds"))
        return LearnedDish(recipe, Dish(**arrays), seconds=seconds)

    def scores_on_learned(self, pool_size: int, seed: int) -> Mapping[str, Array]:
        """Return scores and seconds of the test cells on the learned dish of one pool."""
        return self._read(f"learned-{pool_size}-{seed}", self.dish(pool_size, seed), self.trial.test_cells.cells)

    def scores_on(self, which: Literal["before", "real"], seed: int) -> Mapping[str, Array]:
        """Return scores and seconds of the test cells on the dish before learning, or on real images in its place."""
        recipe = self._seeded(seed) if which == "before" else self.on_images(self._seeded(seed))
        return self._read(f"{which}-{seed}", LearnedDish(recipe, start_dish(recipe)), self.trial.test_cells.cells)

    def curves_of_test_cells(self) -> Mapping[str, Array]:
        """Return the learning curves of the test cells."""
        return self._read("curves", LearnedDish(self.curves, start_dish(self.curves)), self.trial.test_cells.cells)

    def low_fidelity(self) -> Mapping[str, Array]:
        """Return accuracies and losses of small networks after a short training on real images."""
        recipe = self.on_images(self.low_fidelity_network)
        found = self._read("low-fidelity", LearnedDish(recipe, start_dish(recipe)), self.trial.test_cells.cells)
        return {**found, "accuracy": found["score"]}

    def weight_sharing(self, steps: int) -> Mapping[str, Array]:
        """Return scores and seconds of the test cells by their slices of a supernet, after so many steps of their own, and the
        seconds that its training took. The supernet is trained on real images and on the test cells, without their accuracies."""
        recipe, cells = self.on_images(self.shared_network), self.trial.test_cells.cells
        dish = start_dish(recipe)

        def learn(report: Progress) -> dict[str, Array]:
            trained = train_supernet(dish, recipe, cells, threads=self.threads, progress=part_of(report, 0, 3))
            found: dict[str, Array] = {"init_seconds": np.array(trained.seconds)}
            for k, own in enumerate((0, OWN_STEPS)):
                later = part_of(report, k + 1, 3)
                scores = trained.score(dish, cells, steps=own, threads=self.threads, progress=later)
                found |= {f"score-{own}": scores.score, f"seconds-{own}": scores.seconds}
            return found

        kept = self.parts.keep("weight-sharing", learn, self._report("training a supernet"))
        return {
            "score": kept[f"score-{steps}"],
            "seconds": kept[f"seconds-{steps}"],
            "init_seconds": kept["init_seconds"],
        }

    def proxy_recipe(self) -> Recipe:
        """Return the recipe with the network and the batch of zero-cost proxies."""
        return self.proxy_network if self.images is None else self.on_images(self.proxy_network)

    def proxies(self) -> Mapping[str, Array]:
        """Return every zero-cost proxy of the test cells, shape (n,), and its seconds of one core for each cell."""
        from spd_fast.predictors import proxies

        cells, recipe = self.trial.test_cells.cells, self.proxy_recipe()
        batch = start_dish(recipe)

        def measure(report: Progress) -> dict[str, Array]:
            found: dict[str, Array] = {}
            for k, name in enumerate(proxies.PROXIES):
                began = time.process_time()
                found[name] = proxies.score(
                    cells,
                    recipe.shape,
                    batch.images,
                    batch.labels,
                    name,
                    threads=self.threads,
                    progress=part_of(report, k, len(proxies.PROXIES)),
                )
                found[f"{name}_seconds"] = np.array((time.process_time() - began) / len(cells))
            return found

        return self.parts.keep("proxies", measure, self._report("zero-cost proxies"))

    @property
    def has_bananas(self) -> bool:
        """Whether BANANAS' predictor can be measured: whether the cells are those of NAS-Bench-101."""
        return isinstance(self.trial.test_cells.cells, CellColumns)

    def bananas(self, pool_size: int, seed: int) -> Mapping[str, Array]:
        """Return BANANAS' predictions of the test cells, shape (n,), learned from one pool, and its seconds of a fit and of a query."""
        from spd_fast.predictors.bananas import BananasPredictor

        pool, cells = self.trial.pool(pool_size, seed), self.trial.test_cells.nasbench_cells

        def measure(report: Progress) -> dict[str, Array]:
            began = time.perf_counter()
            predictor = BananasPredictor(seed=self.trial.seeds[seed])
            predictor.fit(pool.nasbench_cells, pool.accuracy, progress=report)
            fitted = time.perf_counter()
            score = predictor.query(cells, progress=False)
            each = (time.perf_counter() - fitted) / len(cells)
            return {"score": score, "init_seconds": np.array(fitted - began), "query_seconds": np.array(each)}

        doing = f"BANANAS from {pool_size} labelled cells, pool {seed}"
        return self.parts.keep(f"bananas-{pool_size}-{seed}", measure, self._report(doing))

    def features(self, kind: str, pool_size: int, seed: int) -> _Features:
        """Return the features of one group, for one pool and the test cells."""
        pool, n = self.trial.pool(pool_size, seed), len(self.trial.test_cells)
        if kind == "structure":
            began = time.perf_counter()
            of_pool = structural_features(pool.cells)
            ready = time.perf_counter()
            of_test_cells = structural_features(self.trial.test_cells.cells)
            return _Features(of_pool, of_test_cells, ready - began, (time.perf_counter() - ready) / n)
        if kind == "curves":
            tested = self.curves_of_test_cells()
            unlearned = LearnedDish(self.curves, start_dish(self.curves))
            known = self._read(f"curves-pool-{seed}", unlearned, self.trial.pools[seed].cells)
            wall = float(known["wall"] * known["seconds"][: len(pool)].sum() / known["seconds"].sum())
            return _Features(known["curve"][: len(pool)], tested["curve"], wall, float(tested["seconds"].sum()) / n)
        folds = self.parts.keep(
            f"folds-{self.folds}-{pool_size}-{seed}",
            lambda report: self._measure_folds(pool_size, seed, report),
            self._report(f"learning {self.folds} dishes from folds of {pool_size} labelled cells, pool {seed}"),
        )
        return _Features(
            folds["pool"][:, None],
            folds["test_cells"][:, None],
            float(folds["wall"]),
            float(folds["seconds"].sum()) / n,
        )

    def prior(self, pool_size: int, seed: int) -> _Features:
        """Return the label-free scores of one pool and of the test cells, which come with their learning curves at no further cost."""
        unlearned = LearnedDish(self.curves, start_dish(self.curves))
        known = self._read(f"curves-pool-{seed}", unlearned, self.trial.pools[seed].cells)["score"]
        return _Features(known[:pool_size, None], self.curves_of_test_cells()["score"][:, None], 0.0, 0.0)

    def _measure_folds(self, pool_size: int, seed: int, report: Progress) -> dict[str, Array]:
        pool = self.trial.pool(pool_size, seed)
        began = time.perf_counter()
        scores, dishes = learn_folds(
            pool.cells,
            pool.accuracy,
            self._seeded(seed),
            self.folds,
            threads=self.threads,
            progress=part_of(report, 0, 2),
        )
        wall = time.perf_counter() - began
        later = part_of(report, 1, 2)
        readings = read_all(dishes, self.trial.test_cells.cells, threads=self.threads, progress=later)
        return {
            "pool": scores,
            "test_cells": mean_scaled(dishes, [each.score for each in readings]),
            "seconds": sum_of([each.seconds for each in readings]),
            "wall": np.array(wall),
        }

    def _read(self, name: str, dish: LearnedDish, cells: Sequence[Candidate]) -> Mapping[str, Array]:
        def measure(report: Progress) -> dict[str, Array]:
            began = time.perf_counter()
            readings = dish.read(cells, self.threads, report)
            return {**vars(readings), "wall": np.array(time.perf_counter() - began)}

        return self.parts.keep(name, measure, self._report(f"training motifs: {name}"))

    def _seeded(self, seed: int) -> Recipe:
        """Return the recipe with the seed of one pool's dish."""
        if self.given is not None:
            return self.given[seed].recipe
        return self.recipe.replace({"seed": self.trial.seeds[seed]})

    def on_images(self, recipe: Recipe) -> Recipe:
        """Return the recipe with real images in place of its dish.

        If a class has too few images, the dish has fewer images of every class.
        """
        data, settings = self._data, recipe.dish
        counts = np.bincount(data.train_labels, minlength=settings.classes)[: settings.classes]
        train, valid, fewest = (
            settings.images // settings.classes,
            settings.valid_images // settings.classes,
            counts.min(),
        )
        if train + valid > fewest:
            parts = recipe.inner.replicates if recipe.inner.split_images else 1
            train = int(fewest * train // (train + valid) // parts * parts)
            valid = min(valid, int(fewest) - train)
        changes: dict[str, Any] = {
            "dish.images": train * settings.classes,
            "dish.valid_images": valid * settings.classes,
            "dish.start": "images",
            "dish.source": os.fspath(self.images or ""),
            "dish.image_channels": data.train_images.shape[1],
            "dish.valid_start": "drawn",
        }
        try:
            return recipe.replace(changes)
        except ValueError as error:
            raise ValueError(
                f"{data.name} has {fewest} images of class {counts.argmin()}, too few of each class for a dish: {error}"
            ) from None

    @cached_property
    def _data(self) -> Any:
        from spd_fast.images import load_images

        return load_images(self.images or "")

    def _report(self, what: str) -> Progress:
        progress, done, n = self.progress, self.parts.count, len(self.names())
        if progress is None:
            return lambda share: None
        return lambda share: progress(what, (done + share) / n)

    def names(self) -> list[str]:
        """Return the names of all measurements that the board needs."""
        found = ["curves", "proxies", *(["low-fidelity", "weight-sharing"] if self.images is not None else [])]
        for seed in range(len(self.trial.seeds)):
            found += [f"before-{seed}", f"curves-pool-{seed}", *([f"real-{seed}"] if self.images is not None else [])]
            for size in self.trial.pool_sizes:
                found.append(f"learned-{size}-{seed}")
                found += [f"dish-{size}-{seed}"] if self.given is None else []
                found += [f"folds-{self.folds}-{size}-{seed}"] if self.folds else []
                found += [f"bananas-{size}-{seed}"] if self.has_bananas else []
        return found


class Parts:
    """Measurements by name, in memory and, if there is a folder, in its files.

    The journal says which measurements are there, with a digest of their content, and which ones the board needs.
    """

    def __init__(self, folder: Path | None = None, journal: Journal | None = None) -> None:
        self._kept: dict[str, dict[str, Array]] = {}
        self._folder, self._journal = folder, journal
        records = [] if journal is None else journal.records
        self._measured = {each["part"]: each["content"] for each in records if "part" in each}
        self._planned = next((each["planned"] for each in reversed(records) if "planned" in each), None)

    @property
    def count(self) -> int:
        """The number of measurements that are there."""
        return len(self._kept)

    def plan(self, names: list[str]) -> None:
        """Note which measurements the board needs, for those who watch it."""
        if self._journal is not None and names != self._planned:
            self._journal.append([{"planned": names}])

    def keep(
        self,
        name: str,
        measure: Callable[[Progress], dict[str, Array]],
        report: Progress,
    ) -> dict[str, Array]:
        """Return a measurement; make and save it if it is not there yet."""
        if name not in self._kept:
            self._kept[name] = self._read(name) if name in self._measured else self._write(name, measure(report))
        return self._kept[name]

    def _read(self, name: str) -> dict[str, Array]:
        assert self._folder is not None
        file = self._folder / f"{name}.npz"
        arrays = load_arrays(file, what="measurement", listed=True)
        if content_digest(arrays) != self._measured[name]:
            raise ValueError(f"measurement {file} is not the one that was written there: {REMEDY}")
        return arrays

    def _write(self, name: str, arrays: dict[str, Array]) -> dict[str, Array]:
        if self._folder is not None and self._journal is not None:
            save_arrays(self._folder / f"{name}.npz", arrays)
            self._journal.append([{"part": name, "content": content_digest(arrays)}])
            self._journal.sync()
        return arrays


def board_identity(
    trial: Trial,
    recipe: Recipe,
    curves: Recipe,
    learned: Sequence[LearnedDish] | None,
    images: str | os.PathLike[str] | None,
    *,
    proxy_network: Recipe = PROXY_NETWORK,
    low_fidelity_network: Recipe = LOW_FIDELITY_NETWORK,
    shared_network: Recipe = SHARED_NETWORK,
) -> dict[str, Any]:
    """Return everything that the measurements depend on. Files count by their contents, wherever they lie."""
    from spd_fast.images import load_images

    dishes = [content_digest(each.dish.arrays()) for each in learned or ()]
    return {
        "version": _core.version,
        "trial": trial.digest(),
        "recipe": json.loads(recipe.to_json()),
        "recipe's source": source_digest(recipe),
        "curves": json.loads(curves.to_json()),
        "curves' source": source_digest(curves),
        "proxy network": json.loads(proxy_network.to_json()),
        "low-fidelity network": json.loads(low_fidelity_network.to_json()),
        "shared network": json.loads(shared_network.to_json()),
        "dishes": dishes,
        "images": None if images is None else load_images(images).digest()[:16],
    }
