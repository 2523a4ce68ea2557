"""NATS-Bench: cells, per-epoch curves, and pickles that are read and never run."""

import bz2
import fractions
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small import LEARNING
from spd_fast import MOTIF_C, Cell, InvalidCellError, MotifShape, TruthTable, count_flops, natsbench
from spd_fast.base.plain_pickle import plain_pickle
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.training import train_motifs
from spd_fast.motif import count_parameters
from spd_fast.outer.fit import fit_dish
from spd_fast.reference import pytorch as reference
from spd_fast.spaces.nats_cell import EDGES, NATS_OPS, NatsCell, NatsColumns
from spd_fast.truth.table import write_truth


def run_of(**changes: Any) -> dict[str, Any]:
    epochs = range(3)
    run = {
        "epochs": 3,
        "eval_names": ["x-valid"],
        "train_losses": dict.fromkeys(epochs, 1.0),
        "train_acc1es": dict.fromkeys(epochs, 50.0),
        "eval_losses": {},
        "eval_acc1es": {},
        "train_times": {},
        "params": 1.0,
        "flop": 1.0,
    }
    return run | changes


def architecture_of(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    return {"12": {"arch_index": 1, "arch_str": text, "all_results": {("cifar10", 1): run}} | changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (architecture_of(run_of(epochs=10**12)), "a run has 1000000000000 epochs, expected 1 to 1000"),
        (architecture_of(run_of(epochs=float("inf"))), "OverflowError"),
        (architecture_of(run_of(params=10**400)), "an integer of more than 512 bits"),
        (architecture_of(run_of(eval_names=["x"] * 9)), "it has 9 evaluation sets, expected at most 8"),
        (architecture_of(run_of(eval_names=[1])), "a data set or an evaluation set is not named by a text"),
        (
            architecture_of(run_of(train_losses={epoch: [1, 2] for epoch in range(3)})),
            r"a curve has shape \(3, 2\), expected \(3,\)",
        ),
        (
            architecture_of({}, all_results={("a", k): run_of() for k in range(65)}),
            "it has 65 runs, expected at most 64",
        ),
        ({str(k): {} for k in range(65)}, "it has 65 budgets, expected at most 64"),
        (architecture_of(run_of(), arch_str="|" * 60_000), "is not an architecture of NATS-Bench: InvalidCellError"),
        (
            architecture_of(run_of(), arch_str="|a" * 30_000),
            r"is not an architecture of NATS-Bench: InvalidCellError.*\.\.\.$",
        ),
    ],
)
def test_architectures_made_to_do_harm(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bz2.compress(pickle.dumps(architecture_of(run_of()), 4)))
    assert natsbench.load_architecture(path).runs[0].train_loss.tolist() == [1.0] * 3  # so the test can fail
    path.write_bytes(bz2.compress(pickle.dumps(content, 4)))
    began = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        natsbench.load_architecture(path)
    assert time.process_time() - began < 2
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("name", ["000000", "000011", "000284", "meta"])
def test_real_files_agree_with_pickle(name: str, data_dir: Path) -> None:
    """The reference is pickle itself, on files that are known."""
    content = bz2.decompress((data_dir / "nats" / f"{name}.pickle.pbz2").read_bytes())
    assert plain_pickle(content) == pickle.loads(content)


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
@pytest.mark.parametrize("index", [0, 11, 284])
def test_curves(index: int, data_dir: Path) -> None:
    path = data_dir / "nats" / f"{index:06d}.pickle.pbz2"
    found = natsbench.load_architecture(path)
    unpickled = pickle.loads(bz2.decompress(path.read_bytes()))
    assert found.index == index
    assert found.cell.text == unpickled["200"]["arch_str"]
    assert found.cell == natsbench.load_cells(data_dir / "nats" / "meta.pickle.pbz2")[index]
    for dataset in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
        runs = found.select(dataset, 200)
        assert [run.seed for run in runs] == sorted(unpickled["200"]["dataset_seed"][dataset])
        for run in runs:
            result = unpickled["200"]["all_results"][dataset, run.seed]
            assert run.train_loss.tolist() == [result["train_losses"][t] for t in range(200)]
            assert run.train_accuracy.tolist() == [result["train_acc1es"][t] / 100 for t in range(200)]
            assert run.seconds.sum() == pytest.approx(sum(result["train_times"].values()))
            assert (run.parameters, run.flops) == (result["params"], result["flop"])
            assert list(run.losses) == result["eval_names"]
            for name, losses in run.losses.items():
                told = {
                    int(key.split("@")[1]): value
                    for key, value in result["eval_losses"].items()
                    if key.startswith(name)
                }
                assert {t: losses[t] for t in range(200) if not np.isnan(losses[t])} == told
                assert (run.accuracies[name][~np.isnan(losses)] <= 1).all()
    assert len(found.select("cifar10", 12)) >= 1
    with pytest.raises(
        ValueError, match=f"architecture {index} has no run on mnist of 12 epochs, expected one of: Image"
    ):
        found.select("mnist", 12)


def test_all_cells(data_dir: Path) -> None:
    cells = natsbench.load_cells(data_dir / "nats" / "meta.pickle.pbz2")
    assert len(set(cells)) == len(NATS_OPS) ** len(EDGES) == 15_625
    assert tuple(natsbench.enumerate_space()) == cells


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (0, "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"),
        (9, "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"),
        (123, "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"),
    ],
)
def test_index(index: int, text: str) -> None:
    """The authors' own checks of the order, in the program that made it."""
    assert natsbench.enumerate_space()[index].text == text


@given(st.tuples(*[st.sampled_from(NATS_OPS)] * 6))
def test_cells(ops: tuple[str, ...]) -> None:
    cell = NatsCell(ops)
    assert NatsCell.parse(cell.text) == cell
    with pytest.raises(ValueError, match=r"ops are .*, expected 6 of none, skip_connect"):
        NatsCell(ops[:5])
    with pytest.raises(ValueError, match=r"ops are .*, expected 6 of none"):
        NatsCell((*ops[:5], "maxpool"))
    with pytest.raises(ValueError, match=r"cell is .*, expected the benchmark.s notation, such as"):
        NatsCell.parse(cell.text.replace("~0", "~1", 1))
    with pytest.raises(ValueError, match="expected 6 of none"):
        NatsCell.parse("")


def test_files_that_are_something_else(tmp_path: Path, data_dir: Path) -> None:
    packed = (data_dir / "nats" / "000011.pickle.pbz2").read_bytes()

    def file(content: bytes) -> Path:
        (tmp_path / "x").write_bytes(content)
        return tmp_path / "x"

    with pytest.raises(FileNotFoundError):
        natsbench.load_cells(tmp_path / "absent")
    with pytest.raises(ValueError, match="x is not bz2-compressed, or is damaged"):
        natsbench.load_architecture(file(b"text"))
    for content in (b"", packed[:-10]):
        with pytest.raises(ValueError, match="x was cut short"):
            natsbench.load_architecture(file(content))
    with pytest.raises(ValueError, match=r"x: this pickle asks for fractions\.Fraction"):
        natsbench.load_cells(file(bz2.compress(pickle.dumps(fractions.Fraction(1, 2)))))
    with pytest.raises(ValueError, match="is not an architecture of NATS-Bench: KeyError"):
        natsbench.load_architecture(file(bz2.compress(pickle.dumps({"12": {"arch_str": ""}}))))
    with pytest.raises(ValueError, match="is not the meta file of NATS-Bench: KeyError"):
        natsbench.load_cells(data_dir / "nats" / "000011.pickle.pbz2")
    with pytest.raises(ValueError, match="x unpacks to more than 4194304 bytes"):
        natsbench.load_architecture(file(bz2.compress(bytes(2**28))))
    with pytest.raises(ValueError, match="x has more than 4194304 bytes"):
        natsbench.load_architecture(file(bytes(2**22 + 1)))


# ---- motifs of these cells

FULL = NatsCell(("nor_conv_3x3",) * 6)


def some_cells(n: int) -> list[NatsCell]:
    rng = np.random.default_rng(5)
    drawn = [NatsCell(tuple(NATS_OPS[code] for code in rng.integers(1, 5, 6))) for _ in range(n)]
    assert len(set(drawn)) == n
    return drawn


def test_edges_on_no_path_are_left_out() -> None:
    cell = NatsCell.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    assert cell.matrix.tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4]
    assert FULL.matrix.tolist() == [[0, 3, 3, 3], [0, 0, 3, 3], [0, 0, 0, 3], [0] * 4]
    with pytest.raises(ValueError, match="read-only"):
        cell.matrix[0, 0] = 1


@settings(deadline=None)  # the first call loads torch
@given(st.tuples(*[st.sampled_from(NATS_OPS)] * 6), st.integers(1, 3), st.integers(1, 2))
def test_counts_are_those_of_the_reference(ops: tuple[str, ...], stacks: int, cells_per_stack: int) -> None:
    cell, shape = NatsCell(ops), MotifShape(4, stacks, cells_per_stack)
    if not cell.matrix.any():
        with pytest.raises(InvalidCellError, match=r"no path of operations leads from node 0 to node 3 of \|"):
            count_parameters(cell, shape)
        with pytest.raises(InvalidCellError, match="there is nothing to train"):
            initial_parameters(cell, shape)
        return
    expected = {name: w.numel() for name, w in reference.Motif(cell, shape).named_parameters()}
    assert count_parameters(cell, shape) == sum(expected.values())
    assert {name: w.size for name, w in initial_parameters(cell, shape).items()} == expected


def test_counts_by_hand() -> None:
    assert count_parameters(FULL, MOTIF_C) == 3 * 9 * 16 + 32 + 6 * (9 * 256 + 32) + 170
    assert count_flops(FULL, MOTIF_C) == 2 * (256 * (3 * 9 * 16 + 6 * 9 * 256) + 160)


def test_published_parameters(data_dir: Path) -> None:
    """Their network has two residual blocks where ours projects, and batch norm before the last ReLU; cells and stem are the same."""
    for index in (0, 11, 284):
        found = natsbench.load_architecture(data_dir / "nats" / f"{index:06d}.pickle.pbz2")
        (run, *_) = found.select("cifar10", 200)
        shape = MotifShape(16, 3, 5)
        ours = count_parameters(found.cell, shape) - sum(c * 2 * c + 4 * c for c in (16, 32))
        blocks = sum(9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c + 8 * c for c in (16, 32))
        assert run.parameters * 1e6 == ours + blocks + 2 * 64


def test_columns() -> None:
    cells = some_cells(5)
    columns = NatsColumns.from_cells(cells)
    assert list(columns) == cells
    assert list(columns[1:3]) == cells[1:3]
    assert list(columns[np.array([4, 0])]) == [cells[4], cells[0]]
    assert columns[-1] == cells[-1]
    assert columns.module_hash.tobytes().hex() == "".join(cell.module_hash for cell in cells)
    with pytest.raises(ValueError, match=r"edge_ops is int64 \(2, 5\), expected integers of shape \(n, 6\)"):
        NatsColumns(np.zeros((2, 5), int))
    with pytest.raises(ValueError, match="row 1 of the table has edge_ops outside 0 to 4"):
        NatsColumns([[0] * 6, [5] * 6])
    with pytest.raises(ValueError, match="row 0 of the table has a module_hash that is not its cell's"):
        NatsColumns(columns.edge_ops, columns.module_hash[::-1])
    with pytest.raises(ValueError, match=r"module_hash is uint8 \(4, 16\), expected uint8 \(5, 16\)"):
        NatsColumns(columns.edge_ops, columns.module_hash[:4])


def test_a_truth_of_their_cells(tmp_path: Path, data_dir: Path) -> None:
    architectures = [natsbench.load_architecture(data_dir / "nats" / f"{i:06d}.pickle.pbz2") for i in (0, 11, 284)]
    table = natsbench.truth(architectures)
    runs = architectures[1].select("cifar10", 200)
    assert table.accuracy[1] == np.mean([run.accuracies["ori-test"][-1] for run in runs])
    assert table.loss is not None
    assert table.loss[1] == np.mean([run.losses["ori-test"][-1] for run in runs])
    assert "mean of 3 runs" in table.describe()
    assert "validation_accuracy" in natsbench.truth(architectures, dataset="cifar10-valid", epochs=12).measurements
    table.save(tmp_path / "truth.npz")
    read = TruthTable.load(tmp_path / "truth.npz")
    assert list(read.cells) == [each.cell for each in architectures]
    assert np.allclose(read.accuracy, table.accuracy, atol=1e-7)
    with pytest.raises(TypeError, match="the truth holds NatsCells, expected Cells"):
        _ = read.nasbench_cells
    with pytest.raises(ValueError, match="1 of 2 architectures repeat the cell of another"):
        natsbench.truth([architectures[0]] * 2)
    with pytest.raises(TypeError, match="epochs is '200', expected an integer"):
        natsbench.truth(architectures, epochs="200")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it is an architecture, which load_architecture reads"):
        natsbench.load_cells(data_dir / "nats" / "000011.pickle.pbz2")
    with pytest.raises(
        ValueError, match=r"is not bz2-compressed.*it is a truth file, which spd_fast\.TruthTable\.load reads"
    ):
        natsbench.load_architecture(tmp_path / "truth.npz")
    (tmp_path / "meta").write_bytes(bz2.compress(pickle.dumps({"meta_archs": []})))
    with pytest.raises(ValueError, match="it is the benchmark's meta file, which load_cells reads"):
        natsbench.load_architecture(tmp_path / "meta")
    with pytest.raises(ValueError, match="architecture 0 has no run on mnist"):
        natsbench.truth(architectures, dataset="mnist")


def test_a_truth_holds_cells_of_one_space(tmp_path: Path) -> None:
    cells = [FULL, Cell(["01", "00"], ["input", "output"])]
    with pytest.raises(TypeError, match=r"cells\[1\] is Cell, expected NatsCell"):
        write_truth(
            tmp_path / "x.npz",
            cells=cells,
            budgets=[1],
            seeds=[0],
            arrays={"test_accuracy": np.zeros((2, 1, 1))},
            provenance={},
        )


def test_a_dish_is_fitted_to_their_cells() -> None:
    cells = some_cells(10)
    fitted = fit_dish(cells, np.linspace(0.5, 0.9, 10), LEARNING.replace({"outer.keep": "last"}))
    assert len(fitted.history) == LEARNING.outer.epochs
    assert not np.array_equal(fitted.dish.images, fitted.start.images)


def test_their_cells_beside_those_of_nasbench_101() -> None:
    """In one call, as alone."""
    from spd_fast import Dish

    cells = [FULL, Cell(["010", "001", "000"], ["input", "conv3x3-bn-relu", "output"])]
    how = {"epochs": 2, "batch_size": 20}
    together = train_motifs(cells, MOTIF_C, Dish.random(per_class=4), **how)
    for k, cell in enumerate(cells):
        alone = train_motifs([cell], MOTIF_C, Dish.random(per_class=4), **how)
        assert np.array_equal(together.loss[k], alone.loss[0])
