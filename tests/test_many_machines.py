"""Every door that trains many motifs, on executors: the same bits as with threads, whatever dies on the way."""

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import small
from processes import started
from spd_fast import Adam, MotifShape, SPDPredictor, dish_search, fit_dish, rank, score_cells
from spd_fast.cli.options import executor_of
from spd_fast.cli.rank import _kept
from spd_fast.images import ImageData
from spd_fast.outer.start import start_dish
from spd_fast.predictors.readings import motif_readings
from spd_fast.ranking.querying import query_file
from spd_fast.ranking.rank import Ranking
from spd_fast.recipes import get
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.nats_cell import NatsCell
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.build import build_truth
from spd_fast.truth.table import MEASUREMENTS

CELLS = random_cells(12, seed=8)
TWICE: Recipe = small.RECIPE.replace({"inner.replicates": 2})


class StopError(Exception):
    """Stops some work."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Three threads: the pieces of an executor, without processes that take seconds to start."""
    with ThreadPoolExecutor(3) as pool:
        yield pool


def assert_same(one: Ranking, other: Ranking) -> None:
    for name in ("order", "label_free", "replicates", "curves"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name


def test_scores_by_processes() -> None:
    dish = start_dish(TWICE)
    with ProcessPoolExecutor(2, max_tasks_per_child=1000) as pool:  # not forked: this process has threads
        found = score_cells(dish, TWICE, CELLS, executor=pool)
    assert np.array_equal(found, score_cells(dish, TWICE, CELLS))


def test_readings(pool: Executor) -> None:
    """Chosen replicates, in any order, and another space."""
    told: list[float] = []
    dish = start_dish(TWICE)
    expected = motif_readings(dish, TWICE, CELLS, replicates=[1, 0, 1])
    found = motif_readings(dish, TWICE, CELLS, replicates=[1, 0, 1], executor=pool, threads=2, progress=told.append)
    for name in ("score", "curve", "step_loss"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.seconds.min() > 0
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    slopes = [Perceptron(slope) for slope in (0.1, 0.5, 1.0)]
    recipe = get("rawal_slope").replace({"inner.epochs": 2})
    dish = start_dish(recipe)
    assert np.array_equal(score_cells(dish, recipe, slopes, executor=pool), score_cells(dish, recipe, slopes))


def test_a_ranking_in_parts(pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped, goes on without the executor, loses a part, and goes on with it; nothing that was kept is measured twice."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="parts are Parquet files")
    monkeypatch.setattr("spd_fast.ranking.parts._ROWS", 5)
    cells = [
        NatsCell(("none",) * 6),
        *(NatsCell(("nor_conv_1x1", *rest)) for rest in [("none",) * 5, ("skip_connect",) * 5]),
    ]
    whole = rank(cells)
    parts = tmp_path / "x.parts"
    told: list[float] = []

    def stop(what: str, share: float) -> None:
        told.append(share)
        if len(told) == 4:
            raise StopError

    with pytest.raises(StopError):
        rank(cells, measured=parts, executor=pool, progress=stop)
    assert_same(rank(cells, measured=parts), whole)
    again = rank(cells, measured=parts, executor=pool)
    assert again.core_seconds == 0
    assert_same(again, whole)
    files = sorted(parts.glob("*.parquet"))
    assert len(files) > 2
    table = parquet.read_table(parts)
    assert len(set(zip(table["row"].to_pylist(), table["place"].to_pylist(), strict=True))) == len(table) == 24
    assert set(table["cell"].to_pylist()) == {cell.text for cell in cells}
    trained = [file for file in files if np.isfinite(parquet.read_table(file)["score"].to_numpy()).any()]
    trained[0].unlink()
    found = rank(cells, measured=parts, executor=pool)
    assert found.core_seconds > 0
    assert_same(found, whole)
    damaged = sorted(parts.glob("*.parquet"))[0]
    damaged.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=rf"{damaged.name} is not a part of measurements, or is damaged: remove it"):
        rank(cells, measured=parts)


def test_parts_of_other_cells_are_refused(tmp_path: Path) -> None:
    """Also where the journal, which names the cells, was removed."""
    pytest.importorskip("pyarrow", reason="parts are Parquet files")
    parts = tmp_path / "x.parts"
    rank(CELLS[:2], measured=parts, motifs=1)
    with pytest.raises(ValueError, match="was begun with other settings"):
        rank(CELLS[1:3], measured=parts, motifs=1)
    (parts / "_journal").unlink()
    for cells in (CELLS[1:3], CELLS[:1]):
        with pytest.raises(ValueError, match=r"part-00000\.parquet holds other cells: remove"):
            rank(cells, measured=parts, motifs=1)
    assert rank(CELLS[:2], measured=parts, motifs=1).core_seconds == 0


def test_a_process_that_dies_between_a_part_and_the_journal(pool: Executor, tmp_path: Path) -> None:
    """The part is there, and the journal still has what is in it."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="parts are Parquet files")
    parts, cells = tmp_path / "x.parts", CELLS[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spd_fast.base.stores.Journal.keep", lambda journal, n: None)
        whole = rank(cells, measured=parts, executor=pool)
    again = rank(cells, measured=parts)
    assert again.core_seconds == 0
    assert_same(again, whole)
    assert len(parquet.read_table(parts)) == 16


def test_a_budget_is_kept(pool: Executor) -> None:
    assert rank(CELLS, budget=0, executor=pool).replicates.max() == 0


def test_predictions(pool: Executor, tmp_path: Path) -> None:
    truth = np.random.default_rng(0).uniform(0.8, 0.9, len(CELLS))
    predictor = SPDPredictor(curves=small.CURVE).fit(CELLS, truth)
    expected = predictor.query(random_cells(5, seed=9))
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert np.array_equal(again.query(random_cells(5, seed=9), executor=pool), expected)
    accuracy, _ = query_file(tmp_path / "p.npz", random_cells(5, seed=9), executor=pool)
    assert np.array_equal(accuracy, expected)


def test_a_truth(pool: Executor, tmp_path: Path) -> None:
    """Stopped and gone on with."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 1, 6, 6)).astype(np.uint8)
    data = ImageData(images, np.arange(60) % 3, None, None, name="noise")
    settings: dict[str, Any] = {
        "shape": MotifShape(6, 1, 1, classes=3, image_channels=1),
        "budgets": (1, 3),
        "seeds": (0, 5),
        "batch_size": 8,
        "optimizer": Adam(lr=1e-2),
        "image_size": 6,
        "n_train": 30,
        "n_valid": 11,
        "n_test": 13,
    }
    expected = build_truth(CELLS[:4], data, tmp_path / "here.npz", **settings)
    told: list[float] = []

    def stop(share: float) -> None:
        told.append(share)
        if len(told) == 3:
            raise StopError

    with pytest.raises(StopError):
        build_truth(CELLS[:4], data, tmp_path / "there.npz", executor=pool, progress=stop, **settings)
    found = build_truth(CELLS[:4], data, tmp_path / "there.npz", executor=pool, progress=told.append, **settings)
    for name in MEASUREMENTS:
        if name != "seconds":
            assert np.array_equal(found.measurements[name], expected.measurements[name]), name
    assert told[-1] == 1


@pytest.mark.parametrize("name", ["RECIPE", "LEARNING", "CURVE", "trained once"])
def test_a_dish(name: str, pool: Executor) -> None:
    """Both gradients, initial scales, motifs that are trained once, validation cells, replicates."""
    once = {"outer.learn": ["valid_images"], "outer.gradient": "direct"}
    recipe = small.LEARNING.replace(once) if name == "trained once" else getattr(small, name)
    recipe, threads = recipe.replace({"outer.epochs": 2}), torch.get_num_threads()
    expected, found = (fit_dish(*small.pool(), recipe, executor=executor) for executor in (None, pool))
    for key, array in expected.dish.arrays().items():
        assert np.array_equal(found.dish.arrays()[key], array), key
    for one, other in zip(expected.history, found.history, strict=True):
        assert replace(one, seconds=0, core_seconds=0) == replace(other, seconds=0, core_seconds=0)
    assert torch.get_num_threads() == threads


def test_a_dish_search(pool: Executor) -> None:
    recipe = small.RECIPE.replace({"outer.epochs": 1})
    cells, accuracy = small.pool()
    expected, found = (
        dish_search(cells, accuracy, recipe, max_labelled=8, start=6, executor=executor) for executor in (None, pool)
    )
    assert found == expected


def test_parts_need_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"x.parts, a folder of Parquet files, needs pyarrow.*spd_fast\[tables\]"):
        rank(CELLS[:2], measured=tmp_path / "x.parts")
    assert not (tmp_path / "x.parts").exists()


def test_executors_are_looked_at_first(tmp_path: Path) -> None:
    for door in (
        lambda executor: rank(CELLS, executor=executor),
        lambda executor: fit_dish(*small.pool(), TWICE, executor=executor),
        lambda executor: dish_search(*small.pool(), TWICE, max_labelled=8, start=6, executor=executor),
        lambda executor: score_cells(start_dish(TWICE), TWICE, CELLS, executor=executor),
        lambda executor: build_truth(CELLS, tmp_path, tmp_path / "x", shape=MotifShape(6), executor=executor),
        lambda executor: (
            SPDPredictor(features=("structure",)).fit(CELLS, np.arange(12.0)).query(CELLS, executor=executor)
        ),
    ):
        with pytest.raises(TypeError, match=r"executor is 8, expected a concurrent\.futures\.Executor"):
            door(8)


# ---- clusters


class FakeRay(ModuleType):
    """The module ray, as far as it is asked for."""

    def __init__(self, cpus: float = 2) -> None:
        super().__init__("ray")
        self.connected, self.cpus = "", cpus

    def is_initialized(self) -> bool:
        return bool(self.connected)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.cpus}}, {"Alive": False, "Resources": {"CPU": 64}}]

    def init(self, address: str, **settings: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("nobody answers")
        self.connected = address

    def shutdown(self) -> None:
        self.connected = ""


class FakeClient:
    """A client of Dask, as far as it is asked for."""

    def __init__(self, address: str = "", scheduler_file: str = "") -> None:
        if address == "nowhere":
            raise OSError("timed out")
        self.where = address, scheduler_file
        self.closed = False

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_clusters_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    monkeypatch.setattr("spd_fast.cli.options._PATIENCE", 0.1)
    ray, dask = FakeRay(), ModuleType("distributed")
    vars(dask)["Client"] = FakeClient
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "distributed", dask)
    with executor_of(None, None) as found:
        assert found is None
    with executor_of("auto", None) as found:
        assert found is ray
        assert ray.connected == "auto"
    assert not ray.connected
    for given, where in (("tcp://here:8786", ("tcp://here:8786", "")), (str(file), ("", str(file)))):
        with executor_of(None, given) as found:
            assert found.where == where  # type: ignore[attr-defined]
        assert found.closed  # type: ignore[attr-defined]
    for names, error, message in (
        (("auto", "here"), ValueError, "--ray and --dask are given, expected one of them"),
        (
            ("nowhere", None),
            ConnectionError,
            "--ray is nowhere, but no Ray cluster can be reached there: nobody answers",
        ),
        (
            (None, "nowhere"),
            ConnectionError,
            "--dask is nowhere, but no Dask scheduler can be reached there: timed out",
        ),
        ((None, "no.json"), ConnectionError, "--dask is no.json, but there is no such file after 0 s: start dask"),
    ):
        with pytest.raises(error, match=message), executor_of(*names):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ImportError, match=r"--ray needs Ray, .* pip install 'spd_fast\[ray\]'"),
        executor_of("auto", None),
    ):
        pass


def test_what_a_cluster_must_be() -> None:
    ray = FakeRay()
    with pytest.raises(ValueError, match=r"the module ray, which is not connected: call ray\.init"):
        rank(CELLS, executor=ray)
    ray.init("here")
    with pytest.raises(ValueError, match="threads is 3, expected at most 2: no node of the Ray cluster has more"):
        rank(CELLS, executor=ray, threads=3)


def test_where_measurements_are_kept(tmp_path: Path) -> None:
    """Where there are some; else in parts, if a cluster measures."""
    file = tmp_path / "x.csv"
    one, parts = tmp_path / "x.csv.measured", tmp_path / "x.csv.parts"
    assert (_kept(file, in_parts=False), _kept(file, in_parts=True)) == (one, parts)
    one.touch()
    assert (_kept(file, in_parts=False), _kept(file, in_parts=True)) == (one, one)
    parts.mkdir()
    assert (_kept(file, in_parts=False), _kept(file, in_parts=True)) == (parts, parts)


@pytest.mark.verify
@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_that_loses_workers_and_a_node(kind: str, module: str, tmp_path: Path, project_dir: Path) -> None:
    """`tests/cluster.py` compares the bits, and counts what was measured."""
    pytest.importorskip(module, reason=f"{module} is needed by clusters of {kind} alone")
    pytest.importorskip("pyarrow", reason="parts are Parquet files")
    here = [str(project_dir), str(project_dir / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    env = os.environ | loopback | {"PYTHONPATH": os.pathsep.join(filter(None, here))}
    with started([sys.executable, project_dir / "tests" / "cluster.py", kind, tmp_path], env=env) as process:
        assert process.wait(1800) == 0, process.err
        assert process.out.count(" killed by the test") == 3, process.out
        assert "a node lost by the test" in process.out
        assert re.search(r"^\d+ rankings with the same bits$", process.out, re.MULTILINE)
