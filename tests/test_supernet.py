"""Weight sharing: slices of one set of weights, steps beside PyTorch, equal bits, and a training that survives being killed."""

import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
from processes import started
from spd_fast import supernet
from spd_fast.base.seeds import derived_seed
from spd_fast.dish import Dish
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.optimizers import SGD, Adam, Optimizer, RMSProp
from spd_fast.engine.supernet import Roles, SupernetJob
from spd_fast.engine.training import sample_orders, train_motifs
from spd_fast.motif import MotifShape
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import PerceptronSettings
from spd_fast.reference import pytorch
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.nats_cell import NatsCell
from spd_fast.supernet import Supernet, train_supernet

SHAPE = MotifShape(6, stacks=2, classes=3, image_channels=2)
CELLS = random_cells(12, seed=5)
NATS = [
    NatsCell.parse(text)
    for text in (
        "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
        "|nor_conv_1x1~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
    )
]
DISH = Dish.random(per_class=6, classes=3, image_size=8, image_channels=2)
RECIPE = small.RECIPE.replace(
    {
        "dish.images": 24,
        "dish.valid_images": 9,
        "inner.init": "shared",
        "inner.epochs": 20,
        "inner.schedule": "cosine",
        "outer.metric": "loss",
        "outer.ranking": "accuracy",
        "outer.learn": ["valid_images"],
    }
)
"""80 steps of 5 images."""


def job_of(
    optimizer: Optimizer, cells: list[Any], drawn: list[int], *, dtype: str = "float64"
) -> tuple[Roles, SupernetJob]:
    epochs = -(-len(drawn) // 3)  # of 18 images in batches of 6
    loop = InnerLoop.of(
        epochs=epochs,
        batch_size=6,
        optimizer=optimizer,
        seed=3,
        dtype=dtype,
        drop_last=True,
        direct_convolutions=dtype == "float64",
    )
    roles = Roles(SHAPE, type(cells[0]), DISH.images.shape[1:])
    return roles, SupernetJob(loop, roles, DISH, [cells[row] for row in drawn])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks: PyTorch's thread pool costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- slices


@pytest.mark.parametrize("cells", [CELLS, NATS], ids=["NAS-Bench-101", "NATS-Bench"])
def test_slices_are_those_of_shared_initial_weights(cells: list[Any]) -> None:
    """Initial weights are drawn in +-1/sqrt(fan_in): slices of a wider role have those of the cell, scaled by one factor."""
    roles = Roles(SHAPE, type(cells[0]), (2, 8, 8))
    weights = roles.initial(InnerLoop.of(seed=4, replicate=1))
    assert weights.shape == (roles.size,)
    for cell, spec in zip(cells, roles.specs(cells), strict=True):
        where = roles.slice_of(spec)
        assert len(np.unique(where)) == len(where), "no two weights of a motif are the same one"
        drawn = initial_parameters(cell, SHAPE, image_shape=(2, 8, 8), seed=4, replicate=1)
        for name, array in roles.weights_of(spec, weights).items():
            wide, narrow = roles.dims[name], array.shape
            assert array.shape == drawn[name].shape
            scale = np.sqrt(np.prod(narrow[1:]) / np.prod(wide[1:])) if len(wide) > 1 else 1.0
            np.testing.assert_allclose(array, drawn[name] * scale, rtol=1e-6)  # two roundings to float32


def test_roles_are_as_wide_as_the_widest_cell() -> None:
    """Of 300 random cells none has a wider layer, and each role is reached by one."""
    roles = Roles(SHAPE, Cell, (2, 8, 8))
    widest: dict[str, tuple[int, ...]] = {}
    for spec in roles.specs(random_cells(300, seed=1)):
        for name, _, dims in spec.tables.parameters:
            before = widest.get(name, (0,) * len(dims))
            widest[name] = tuple(map(max, before, dims))
    assert set(widest) <= set(roles.dims)
    assert all(
        found <= most for name, dims in widest.items() for found, most in zip(dims, roles.dims[name], strict=True)
    )
    assert widest["stacks.0.0.vertex1.conv.weight"] == roles.dims["stacks.0.0.vertex1.conv.weight"] == (6, 6, 3, 3)
    assert roles.dims["stacks.1.0.projection2.conv.weight"] == (12, 6, 1, 1)


# ---- steps beside PyTorch


def sliced(masters: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a module as slices of the roles, written down once more."""
    found = {}
    for name, own in shapes.items():
        part = masters[name][tuple(slice(n) for n in own.shape[:2])]
        found[name] = part[:, :, 1:2, 1:2] if own.shape[2:] == (1, 1) and part.shape[2:] == (3, 3) else part
    return found


class Sparse:
    """The optimizers of PyTorch and TensorFlow 1 for weights of which a step has only some. Steps count from the first of all."""

    def __init__(self, optimizer: Optimizer, masters: Mapping[str, torch.Tensor]) -> None:
        self.how, self.t = optimizer, 0
        self.a = {name: torch.zeros_like(w) for name, w in masters.items()}
        start = torch.ones_like if isinstance(optimizer, RMSProp) else torch.zeros_like
        self.b = {name: start(w) for name, w in masters.items()}

    def step(self, masters: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor], used: Any) -> None:
        self.t += 1
        how = self.how
        for name, w in masters.items():
            g, a, b = gradients[name] + how.weight_decay * w, self.a[name], self.b[name]
            if isinstance(how, Adam):
                b1, b2 = how.betas
                a, b = b1 * a + (1 - b1) * g, b2 * b + (1 - b2) * g * g
                change = how.lr * (a / (1 - b1**self.t)) / ((b / (1 - b2**self.t)).sqrt() + how.eps)
            elif isinstance(how, SGD):
                a = how.momentum * a + g
                change = how.lr * a
            else:
                b = how.alpha * b + (1 - how.alpha) * g * g
                a = how.momentum * a + how.lr * g / (b + how.eps).sqrt()
                change = a
            for tensor, new in ((w, w - change), (self.a[name], a), (self.b[name], b)):
                tensor.copy_(torch.where(used[name], new, tensor))


@pytest.mark.parametrize(
    ("optimizer", "cells"),
    [
        (Adam(lr=3e-3, weight_decay=1e-2), CELLS),
        (Adam(lr=3e-3), NATS),
        (SGD(lr=0.1, momentum=0.9), CELLS),
        (RMSProp(lr=1e-2), CELLS),
    ],
    ids=["Adam", "Adam, NATS-Bench", "SGD", "RMSProp"],
)
def test_steps_are_pytorchs(optimizer: Optimizer, cells: list[Any]) -> None:
    """Forward pass, gradient and update of four steps, in double. The bound is that of whole trainings beside PyTorch: rounding grows
    from step to step, most where Adam divides by small numbers. A first step of SGD is the gradient itself."""
    drawn = [0, 1, 1, 0] if cells is NATS else [0, 1, 2, 1]
    roles, job = job_of(optimizer, cells, [*drawn, 0, 0])
    state = job.begin()
    ends = np.cumsum([np.prod(dims) for dims in roles.dims.values()])[:-1]

    def by_role(vector: Any) -> dict[str, torch.Tensor]:
        parts = np.split(vector, ends)
        return {
            name: torch.tensor(part.reshape(dims)) for part, (name, dims) in zip(parts, roles.dims.items(), strict=True)
        }

    masters = by_role(state.weights)
    stepper = Sparse(optimizer, masters)
    x, y = torch.tensor(np.asarray(DISH.images, np.float64)), torch.tensor(DISH.labels)
    for t, row in enumerate(drawn):
        module = pytorch.build(cells[row], SHAPE)
        own = dict(module.named_parameters())
        leaves = {name: w.clone().requires_grad_() for name, w in masters.items()}
        batch = job._order[t]
        logits = torch.func.functional_call(module, sliced(leaves, own), x[batch])
        loss = torch.nn.functional.cross_entropy(logits, y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        used = {name: torch.zeros(w.shape, dtype=torch.bool) for name, w in masters.items()}
        for part in sliced(used, own).values():
            part.fill_(True)
        before = {name: w.clone() for name, w in masters.items()}
        gradients = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in leaves.items()}
        stepper.step(masters, gradients, used)
        state = job.advance(state, 1, threads=1)
        assert state.step_loss[t] == pytest.approx(loss.item(), abs=1e-9)
        found = by_role(state.weights)
        for name, w in masters.items():
            np.testing.assert_allclose(found[name], w, atol=1e-8)
            np.testing.assert_array_equal(found[name][~used[name]], before[name][~used[name]])
        for mine, theirs in ((state.first, stepper.a), (state.second, stepper.b)):
            for name, kept in by_role(mine).items():
                np.testing.assert_allclose(kept, theirs[name], atol=1e-8)
        masters = {name: w.clone() for name, w in found.items()}  # so that each step is compared alone
        stepper.a, stepper.b = by_role(state.first), by_role(state.second)
    assert np.isnan(state.step_loss[len(drawn) :]).all()


def test_threads_and_calls_change_no_bit() -> None:
    drawn = [0, 5, 7, 5, 2, 11, 3, 1, 9]
    _, job = job_of(Adam(lr=3e-3), CELLS, drawn, dtype="float32")
    whole = job.advance(job.begin(), len(drawn), threads=1)
    for threads, sizes in ((2, (9,)), (3, (1, 3, 5)), (1, (4, 5))):
        state = job.begin()
        for size in sizes:
            state = job.advance(state, size, threads=threads)
        for name, value in vars(whole).items():
            np.testing.assert_array_equal(getattr(state, name), value)


# ---- a whole training


@pytest.fixture(scope="module")
def trained() -> Supernet:
    return train_supernet(start_dish(RECIPE), RECIPE, CELLS, threads=1)


def test_scores_are_those_of_sliced_weights(trained: Supernet) -> None:
    """As `train_motifs` reads them; the loss of the batches fell in training."""
    dish = start_dish(RECIPE)
    cells = random_cells(5, seed=9)
    found = trained.score(dish, cells, threads=2)
    motifs = train_motifs(cells, trained.shape, dish, epochs=0, init=trained.weights_of(cells), threads=1)
    assert motifs.valid is not None
    np.testing.assert_array_equal(found.accuracy, motifs.valid.accuracy)
    np.testing.assert_array_equal(found.loss, motifs.valid.loss)
    np.testing.assert_array_equal(found.score, found.accuracy)
    assert (found.seconds > 0).all()
    assert trained.step_loss[-20:].mean() < trained.step_loss[:20].mean()


def test_steps_of_their_own_are_trainings_from_the_slice(trained: Supernet) -> None:
    """Two steps on two batches, which are the same for all cells; none with rate 0."""
    dish = start_dish(RECIPE)
    found = trained.score(dish, CELLS[:3], steps=2, rate=1e-2)
    alone = trained.score(dish, CELLS[2:3], steps=2, rate=1e-2)
    np.testing.assert_array_equal(found.loss[2:], alone.loss)
    kept = trained.score(dish, CELLS[:3])
    np.testing.assert_array_equal(trained.score(dish, CELLS[:3], steps=2, rate=0).loss, kept.loss)
    assert (found.loss != kept.loss).all()
    assert (trained.score(dish, CELLS[:3], steps=2).loss != kept.loss).all(), "a tenth of the recipe's rate"
    longer = [trained.score(dish, CELLS[:1], steps=steps, rate=1e-2).loss[0] for steps in (3, 4, 9)]
    assert len(set(longer)) == 3, "24 images in batches of 5: nine steps see images again"
    first = trained.weights_of(CELLS[:1])
    orders = sample_orders(None, derived_seed(RECIPE.seed, "own steps"), 3, 24)
    motifs = train_motifs(
        CELLS[:1],
        trained.shape,
        dish,
        init=first,
        epochs=3,
        batch_size=5,
        drop_last=True,
        order=orders,
        optimizer=Adam(lr=1e-2),
        schedule=[1e-2] * 9 + [0.0] * 3,
    )
    assert motifs.valid is not None
    assert longer[-1] == motifs.valid.loss[0]


def test_fewer_images_than_a_batch_holds() -> None:
    """A step of a cell's own takes all of them, as a step of the supernet does."""
    dish = start_dish(RECIPE)
    rows = [*np.unique(dish.labels, return_index=True)[1], len(dish.labels) - 1]
    few = replace(dish, images=dish.images[rows], labels=dish.labels[rows])
    net = train_supernet(few, RECIPE, CELLS)
    motifs = train_motifs(
        CELLS[:1],
        net.shape,
        few,
        init=net.weights_of(CELLS[:1]),
        epochs=3,
        batch_size=4,
        order=sample_orders(None, derived_seed(RECIPE.seed, "own steps"), 3, 4),
        optimizer=Adam(lr=1e-2),
    )
    assert motifs.valid is not None
    assert net.score(few, CELLS[:1], steps=3, rate=1e-2).loss[0] == motifs.valid.loss[0]


def test_cells_at_once_change_no_score(trained: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    dish = start_dish(RECIPE)
    whole, shares = trained.score(dish, CELLS).loss, []
    monkeypatch.setattr(supernet, "_SCORED_AT_ONCE", 5)
    np.testing.assert_array_equal(trained.score(dish, CELLS, progress=shares.append).loss, whole)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_files_hold_the_supernet(trained: Supernet, tmp_path: Path) -> None:
    trained.save(tmp_path / "s.npz")
    again = Supernet.load(tmp_path / "s.npz")
    dish = start_dish(RECIPE)
    np.testing.assert_array_equal(again.score(dish, CELLS).loss, trained.score(dish, CELLS).loss)
    assert (again.recipe, again.identity, again.seconds) == (trained.recipe, trained.identity, trained.seconds)
    dish.save(tmp_path / "dish.npz")
    with pytest.raises(
        ValueError, match=r"supernet file .*dish.npz cannot be read: 'schema' is missing; it is a file of"
    ):
        Supernet.load(tmp_path / "dish.npz")
    with pytest.raises(FileNotFoundError):
        Supernet.load(tmp_path / "none.npz")
    with np.load(tmp_path / "s.npz") as held:
        np.savez(tmp_path / "short.npz", **{**held, "weights": held["weights"][:-1]})
    with pytest.raises(ValueError, match=r"short.npz cannot be read: weights have shape \(\d+,\), expected \(\d+,\)"):
        Supernet.load(tmp_path / "short.npz")
    np.savez(tmp_path / "old.npz", schema="spd_fast.supernet/0")
    with pytest.raises(ValueError, match=r"has schema 'spd_fast.supernet/0', expected 'spd_fast.supernet/1'"):
        Supernet.load(tmp_path / "old.npz")


# ---- killed and resumed

PROGRAM = """
import time
from spd_fast import supernet
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.cell_files import random_cells
supernet._SAVE_SECONDS = 0.0
recipe = Recipe.from_json({recipe!r})
supernet.train_supernet(
    start_dish(recipe), recipe, random_cells(12, seed=5), file={out!r}, threads=1, progress=lambda share: time.sleep(0.1)
)
"""


def test_killed_and_resumed(tmp_path: Path, trained: Supernet) -> None:
    """SIGKILL as soon as the journal has grown, twice: in the end the weights of one run."""
    out = tmp_path / "s.npz"
    journal = tmp_path / "s.npz.journal"
    program = PROGRAM.format(recipe=RECIPE.to_json(), out=str(out))

    def records() -> int:
        return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0

    for wanted in (1, 2):
        with started([sys.executable, "-c", program]) as process:
            assert process.reaches(lambda wanted=wanted: records() >= wanted), process.err
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.err
    again = train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out)
    np.testing.assert_array_equal(again.weights, trained.weights)
    np.testing.assert_array_equal(again.step_loss, trained.step_loss)
    assert list(tmp_path.iterdir()) == [out]


class StoppedError(Exception):
    pass


def interrupted(out: Path, monkeypatch: pytest.MonkeyPatch, after: float = 0.6) -> None:
    """Stop a training after a share of its steps."""
    monkeypatch.setattr(supernet, "_SAVE_SECONDS", 0.0)

    def stop(share: float) -> None:
        if share >= after:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out, progress=stop)
    assert {path.name for path in out.parent.iterdir()} == {"s.npz.journal", "s.npz.checkpoint"}


def test_a_stopped_training_goes_on_where_it_was(
    tmp_path: Path, trained: Supernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.npz"
    interrupted(out, monkeypatch)
    shares: list[float] = []
    again = train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out, progress=shares.append)
    assert shares[0] >= 0.25, "80 steps, and the first 20 are not trained again"
    np.testing.assert_array_equal(again.weights, trained.weights)
    content, shares[:] = out.read_bytes(), []
    train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out, progress=shares.append)
    assert shares == [1.0], "it is there"
    with pytest.raises(FileExistsError, match=r"s\.npz exists already: choose another name, or move it away"):
        train_supernet(start_dish(RECIPE), RECIPE, CELLS[:-1], file=out)
    assert out.read_bytes() == content
    assert list(tmp_path.iterdir()) == [out]


def test_a_training_with_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s.npz"
    interrupted(out, monkeypatch)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = RECIPE.replace({"inner.batch_size": 4})
    with pytest.raises(ValueError, match=r"recipe.inner.batch_size is 4, begun with 5.*delete the journal"):
        train_supernet(start_dish(RECIPE), other, CELLS, file=out)
    with pytest.raises(ValueError, match="cells is"):
        train_supernet(start_dish(RECIPE), RECIPE, CELLS[::-1], file=out)
    with pytest.raises(ValueError, match="dish is"):
        train_supernet(start_dish(RECIPE.replace({"seed": 8})), RECIPE, CELLS, file=out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_that_is_another_ones_or_damaged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, checkpoint = tmp_path / "s.npz", tmp_path / "s.npz.checkpoint"
    interrupted(out, monkeypatch)
    content = checkpoint.read_bytes()
    at = len(content) // 2
    checkpoint.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ValueError, match=r"checkpoint .*s\.npz\.checkpoint"):
        train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out)
    checkpoint.write_bytes(content)
    (tmp_path / "other").mkdir()
    interrupted(tmp_path / "other" / "s.npz", monkeypatch)
    checkpoint.write_bytes((tmp_path / "other" / "s.npz.checkpoint").read_bytes())
    with pytest.raises(ValueError, match="is not the one that was written there: delete the journal"):
        train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out)


def test_a_checkpoint_older_than_the_journal_is_continued(
    tmp_path: Path, trained: Supernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill came between the record of a checkpoint and the checkpoint."""
    out, checkpoint = tmp_path / "s.npz", tmp_path / "s.npz.checkpoint"
    interrupted(out, monkeypatch, 0.3)
    content = checkpoint.read_bytes()
    interrupted(out, monkeypatch, 0.6)
    checkpoint.write_bytes(content)
    again = train_supernet(start_dish(RECIPE), RECIPE, CELLS, file=out)
    np.testing.assert_array_equal(again.weights, trained.weights)


def test_a_training_that_diverges_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    wild = RECIPE.replace({"inner.optimizer": {"name": "sgd", "lr": 10.0, "weight_decay": 10.0}})
    with pytest.raises(
        ValueError, match=r"the loss of step \d+ of the supernet is not finite: .* choose a lower inner.opt"
    ):
        train_supernet(start_dish(RECIPE), wild, CELLS, file=tmp_path / "s.npz", threads=1)
    assert not list(tmp_path.iterdir())


# ---- what does not fit


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inner.init": "motif"}, "inner.init of recipe 'small' is 'motif', expected 'shared'"),
        ({"inner.replicates": 2}, "inner.replicates of recipe 'small' is 2, expected 1"),
        ({"motif": {"stem_channels": 1}}, "stem channels"),
        (
            {
                "outer.metric": "training_loss",
                "outer.ranking": "metric",
                "outer.learn": ["images"],
                "outer.gradient": "unrolled",
            },
            "outer.metric of recipe 'small' is 'training_loss' with outer.ranking 'metric', expected 'loss' or",
        ),
    ],
)
def test_recipes_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train_supernet(start_dish(RECIPE), RECIPE.replace(changes), CELLS, file=tmp_path / "s.npz")
    assert not list(tmp_path.iterdir())


def test_cells_and_files_that_do_not_fit(tmp_path: Path) -> None:
    dish = start_dish(RECIPE)
    with pytest.raises(ValueError, match="cells is empty"):
        train_supernet(dish, RECIPE, [])
    with pytest.raises(TypeError, match="cells are of NAS-Bench-101 and of NATS-Bench, expected cells of one space"):
        train_supernet(dish, RECIPE, [*CELLS, *NATS])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_supernet(dish, RECIPE, CELLS, file=tmp_path / "nowhere" / "s.npz")
    perceptrons = RECIPE.model_copy(update={"motif": PerceptronSettings(hidden=2)})
    with pytest.raises(TypeError, match="the motifs of recipe 'small' are perceptrons, expected motifs of cells"):
        train_supernet(dish, perceptrons, CELLS)


def test_scores_that_do_not_fit(trained: Supernet) -> None:
    dish = start_dish(RECIPE)
    with pytest.raises(
        TypeError, match=r"cells\[0\] is NatsCell, expected spd_fast.Cell: the supernet is of that space"
    ):
        trained.score(dish, NATS)
    with pytest.raises(ValueError, match="steps is -1, expected at least 0"):
        trained.score(dish, CELLS, steps=-1)
    with pytest.raises(ValueError, match="rate is -1, expected"):
        trained.score(dish, CELLS, steps=1, rate=-1)
    with pytest.raises(ValueError, match="dish is not the one that the supernet was trained on"):
        trained.score(start_dish(RECIPE.replace({"seed": 8})), CELLS)
    with pytest.raises(ValueError, match="dish has no validation images"):
        trained.score(Dish(dish.images, dish.labels), CELLS)
