"""The hypergradient against central differences of the whole inner loop, and against PyTorch's create_graph."""

import dataclasses

import numpy as np
import pytest
import torch

import spd_fast as spd
from spd_fast.engine.hypergradient import motif_hypergradient
from spd_fast.engine.initial import initial_parameters
from spd_fast.reference import pytorch as reference

MIXED = spd.Cell(
    [[0, 1, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output"],
)
WIDE = spd.Cell(
    [[0, 1, 1, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    ["input", "maxpool3x3", "conv3x3-bn-relu", "conv3x3-bn-relu", "output"],
)
EDGES = spd.NatsCell.parse(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
)
CELLS = [MIXED, WIDE, EDGES]
SMALL = spd.MotifShape(6, stacks=2, classes=4)
OPTIMIZERS = [
    spd.Adam(2e-3, weight_decay=1e-3),
    spd.SGD(0.1),
    spd.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    spd.SGD(0.05, momentum=0.9, nesterov=True),
    spd.RMSProp(0.02, weight_decay=1e-3),
]


def make_dish(n=20, n_valid=12, side=8, classes=4, seed=0, valid=True, width=None):
    rng = np.random.default_rng(seed)

    def some(count):
        labels = np.full((count, classes), 0.1 / classes) + 0.9 * np.eye(classes)[rng.integers(0, classes, count)]
        return rng.standard_normal((count, 3, side, width or side)), labels

    return spd.Dish(*some(n), *(some(n_valid) if valid else (None, None)))


def replaced(dish, **arrays):
    fields = ("images", "labels", "valid_images", "valid_labels")
    return spd.Dish(**({name: getattr(dish, name) for name in fields} | arrays))


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def unrolled(cell, shape, dish, result, *, optimizer, order, batch, step_weights, metric_weight):
    """Value and derivatives by PyTorch, step by step with create_graph; in the dtype of `result`'s weights."""
    module = reference.build(cell, shape, result.initial[0], dtype=torch.float64)
    arrays = {name: getattr(dish, name) for name in ("images", "labels", "valid_images", "valid_labels")}
    steps = len(step_weights)
    batches = [row[i : i + batch] for row in order for i in range(0, len(row), batch)][:steps]
    value, leaves = reference.unrolled(
        module,
        arrays,
        batches,
        rates=np.full(steps, optimizer.lr),
        step_weights=step_weights,
        metric_weight=metric_weight,
        optimizer=type(optimizer).__name__.lower(),
        **dataclasses.asdict(optimizer),
    )
    initial = leaves.pop("initial")
    found = torch.autograd.grad(value, [*leaves.values(), *initial.values()])
    *d_inputs, d_rates = (d.numpy() for d in found[: len(leaves)])
    d_initial = {name: d.numpy() for name, d in zip(initial, found[len(leaves) :], strict=True)}
    return value.item(), d_inputs, d_rates, d_initial


def check_against_create_graph(cell, shape, dish, optimizer, batch, bound, steps=10, **options):
    """Derivatives in the initial weights are compared against the largest of them: some are zero by batch norm's invariance."""
    epochs = -(-steps // -(-len(dish.images) // batch))
    order = np.stack([np.random.default_rng(i).permutation(len(dish.images)) for i in range(epochs)])
    step_weights = np.linspace(-1, 1, steps)
    how = {"optimizer": optimizer, "order": order, "step_weights": step_weights, "metric_weight": 2.0}
    got = motif_hypergradient(
        [cell],
        shape,
        dish,
        metric="loss",
        epochs=epochs,
        steps=steps,
        batch_size=batch,
        dtype="float64",
        seed=1,
        **how,
        **options,
    )
    got_start = spd.train_motifs([cell], shape, dish, epochs=0, dtype="float64", seed=1)
    value, d_inputs, d_rates, d_start = unrolled(cell, shape, dish, got_start, batch=batch, **how)
    assert got.value[0] == pytest.approx(value, rel=bound)
    names = ("d_images", "d_labels", "d_valid_images", "d_valid_labels")
    for name, expected in zip(names, d_inputs, strict=True):
        assert relative(getattr(got, name)[0], expected) < bound, name
    assert relative(got.d_rates[0], d_rates) < bound
    largest = max(np.abs(d).max() for d in d_start.values())
    for name, expected in d_start.items():
        assert np.abs(got.d_initial[0][name] - expected).max() < bound * largest, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=["mixed", "wide", "edges"])
def test_agrees_with_create_graph(cell, optimizer):
    """Edge cells in one stack: between stacks batch norm takes their shifts out again, and Adam divides rounding by rounding."""
    shape = spd.MotifShape(6, cells_per_stack=2, classes=4) if cell is EDGES else SMALL
    check_against_create_graph(cell, shape, make_dish(), optimizer, 8, 1e-8)  # 8, 8 and 4 images: partial batches too


def test_agrees_with_create_graph_where_edge_cells_change_channels():
    check_against_create_graph(EDGES, SMALL, make_dish(), OPTIMIZERS[2], 8, 1e-8)


@pytest.mark.parametrize("width", [8, 6])  # 6: rows with lanes that hold no pixel, amid a tile
@pytest.mark.parametrize("cell", [MIXED, WIDE], ids=["mixed", "wide"])
def test_agrees_with_create_graph_by_winograd(cell, width):
    dish = make_dish(n=23, width=width)
    check_against_create_graph(cell, SMALL, dish, OPTIMIZERS[2], 8, 1e-8, direct_convolutions=False, memory_mib=0)


@pytest.mark.parametrize("cell", [MIXED, WIDE], ids=["mixed", "wide"])
def test_agrees_with_create_graph_on_images_of_four_pixels(cell):
    """The third stack of the motif that ranking trains: by conv3x3_channels.hpp, where vectors have four lanes or more."""
    shape = spd.MotifShape(6, stacks=3, classes=4)
    dish = make_dish(n=23)
    check_against_create_graph(cell, shape, dish, OPTIMIZERS[2], 8, 1e-8, direct_convolutions=False, memory_mib=0)


@pytest.mark.verify
@pytest.mark.parametrize("row", range(30))
@pytest.mark.parametrize("shape", [spd.MOTIF_A, spd.MOTIF_B, spd.MOTIF_C], ids="ABC")
def test_agrees_with_create_graph_on_real_cells(data_dir, shape, row):
    table = spd.TruthTable.load(data_dir / "nb101" / "nb101_test108.npz")
    cell = table.cells[int(np.random.default_rng(3).choice(len(table), 30, replace=False)[row])]
    dish = make_dish(n=60, n_valid=20, side=16, classes=10)
    check_against_create_graph(cell, shape, dish, spd.SGD(0.005, momentum=0.9, weight_decay=1e-4), 20, 1e-8)


@pytest.mark.parametrize("steps", [3, 10, 20])
@pytest.mark.parametrize("optimizer", [OPTIMIZERS[0], OPTIMIZERS[3]], ids=str)
@pytest.mark.parametrize("metric", ["loss", "probability"])
def test_agrees_with_central_differences(steps, optimizer, metric):
    """Along sign(gradient): masks of ReLU and pooling switch within any larger step, so the best of four small ones counts."""
    dish = make_dish()
    how = {
        "metric": metric,
        "epochs": 7,
        "batch_size": 8,
        "steps": steps,
        "optimizer": optimizer,
        "dtype": "float64",
        "step_weights": np.full(steps, 0.1),
    }
    exact = motif_hypergradient(CELLS, SMALL, dish, **how)
    for k in range(len(CELLS)):
        for name in ("images", "valid_images", "labels"):
            direction = np.sign(getattr(exact, f"d_{name}")[k])
            slope = (getattr(exact, f"d_{name}")[k] * direction).sum()
            errors = []
            for h in (1e-7, 1e-8, 1e-9, 1e-10):
                ends = [
                    motif_hypergradient(
                        [CELLS[k]], SMALL, replaced(dish, **{name: getattr(dish, name) + s * h * direction}), **how
                    ).value[0]
                    for s in (1, -1)
                ]
                errors.append(abs((ends[0] - ends[1]) / (2 * h) / slope - 1))
            assert min(errors) < 1e-6, (name, errors)


def test_without_a_validation_set_the_metric_is_on_the_training_images():
    dish = make_dish(valid=False)
    how = {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": spd.SGD(0.1),
        "dtype": "float64",
        "metric": "loss",
        "direct_convolutions": True,
    }
    exact = motif_hypergradient([WIDE], SMALL, dish, **how)
    trained = spd.train_motifs([WIDE], SMALL, dish, **{k: v for k, v in how.items() if k != "metric"})
    assert exact.value[0] == trained.train.loss[0]
    direction = np.sign(exact.d_images[0])
    h = 1e-8
    ends = [
        motif_hypergradient([WIDE], SMALL, replaced(dish, images=dish.images + s * h * direction), **how).value[0]
        for s in (1, -1)
    ]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(np.abs(exact.d_images[0]).sum(), rel=1e-5)


def test_no_steps_are_the_direct_gradient():
    dish = make_dish()
    trained = spd.train_motifs(CELLS, SMALL, dish, epochs=2, optimizer=spd.Adam(1e-2))
    values, d_images = spd.motif_gradient(CELLS, SMALL, dish.valid_images, dish.valid_labels, trained.parameters)
    nothing = motif_hypergradient(
        CELLS, SMALL, dish, epochs=2, optimizer=spd.Adam(1e-2), window=0, direct_convolutions=False
    )
    np.testing.assert_array_equal(nothing.value, values)
    np.testing.assert_array_equal(nothing.d_valid_images, d_images)
    assert not nothing.d_images.any()


@pytest.mark.parametrize("direct_convolutions", [True, False])
def test_training_inside_is_the_training_outside(direct_convolutions):
    dish = make_dish()
    how = {
        "epochs": 3,
        "batch_size": 8,
        "optimizer": spd.Adam(1e-2),
        "seed": 4,
        "direct_convolutions": direct_convolutions,
    }
    trained = spd.train_motifs(CELLS, SMALL, dish, record=["step_loss"], **how)
    reversed_ = motif_hypergradient(CELLS, SMALL, dish, **how)
    np.testing.assert_array_equal(reversed_.step_loss, trained.recorded["step_loss"])
    np.testing.assert_array_equal(reversed_.value, trained.valid.probability)
    for a, b in zip(reversed_.parameters, trained.parameters, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


FOUR_MEET = spd.Cell(
    [[0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1], [0] * 6],
    ["input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"],
)
THREE_MEET = spd.Cell(
    [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0] * 5],
    ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "conv3x3-bn-relu", "output"],
)
CHAIN = spd.Cell(
    [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4], ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "output"]
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("side", "width", "batch", "n"),
    [(16, 16, 8, 15), (12, 12, 5, 7), (32, 32, 3, 5), (8, 8, 20, 27), (4, 4, 9, 20), (8, 6, 5, 8)],
)
def test_a_sum_made_where_it_is_read_is_the_sum_that_is_kept(side, width, batch, n, dtype):
    """Hypergradients keep what convolutions read, trainings make it: in parts, fused with the first product or not, without the lanes of no pixel."""
    dish = make_dish(n=n, n_valid=4, side=side, width=width)
    cells = [FOUR_MEET, THREE_MEET, CHAIN, WIDE]
    shape = spd.MotifShape(11, stacks=2, cells_per_stack=2, classes=4)
    how = {"epochs": 2, "batch_size": batch, "optimizer": spd.Adam(1e-2), "seed": 4, "dtype": dtype}
    made = spd.train_motifs(cells, shape, dish, **how)
    kept = motif_hypergradient(cells, shape, dish, window=0, direct_convolutions=False, **how)
    for a, b in zip(kept.parameters, made.parameters, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(("side", "width"), [(64, 16), (16, 16), (12, 12)])
def test_metrics_alone_are_those_beside_a_gradient(side, width):
    """Without a backward pass more tensors share a place."""
    dish = make_dish(n=4, n_valid=4, side=side, width=width)
    alone = spd.Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv3x3-bn-relu", "output"])
    cells, shape = [alone, CHAIN, THREE_MEET, WIDE], spd.MotifShape(5, stacks=1, classes=4)
    trained = spd.train_motifs(cells, shape, dish, epochs=1, optimizer=spd.Adam(1e-2), batch_size=4)
    values, _ = spd.motif_gradient(cells, shape, dish.valid_images, dish.valid_labels, trained.parameters)
    np.testing.assert_array_equal(trained.valid.probability, values)


def test_a_window_reverses_the_last_steps_alone():
    dish = make_dish()
    how = {"epochs": 4, "batch_size": 8, "optimizer": spd.SGD(0.05, momentum=0.9), "dtype": "float64"}
    whole = motif_hypergradient([MIXED], SMALL, dish, **how)
    same = motif_hypergradient([MIXED], SMALL, dish, window=12, **how)
    np.testing.assert_array_equal(whole.d_images, same.d_images)
    part = motif_hypergradient([MIXED], SMALL, dish, window=5, **how)
    np.testing.assert_array_equal(part.d_rates[0, 7:], whole.d_rates[0, 7:])
    assert not part.d_rates[0, :7].any()
    assert not np.array_equal(part.d_images, whole.d_images)
    # The derivative in the weights at which the window opens is that of a training which starts there, momentum apart.
    early = motif_hypergradient([MIXED], SMALL, dish, window=1, steps=1, **(how | {"optimizer": spd.SGD(0.05)}))
    full = motif_hypergradient([MIXED], SMALL, dish, steps=1, **(how | {"optimizer": spd.SGD(0.05)}))
    np.testing.assert_array_equal(early.d_initial[0]["stem.conv.weight"], full.d_initial[0]["stem.conv.weight"])


@pytest.mark.parametrize("window", [None, 5])
def test_gradients_that_do_not_fit_are_computed_again_to_the_same_bits(window):
    dish = make_dish()
    how = {"epochs": 4, "batch_size": 8, "optimizer": spd.Adam(1e-2, weight_decay=1e-3), "window": window}
    kept = motif_hypergradient([MIXED], SMALL, dish, **how)
    mib = spd.count_parameters(MIXED, SMALL) * 4 / 2**20
    for gradients in (0, 1, 7, 11):  # of 12 steps, in segments of 4
        fewer = motif_hypergradient([MIXED], SMALL, dish, memory_mib=(gradients + 0.5) * mib, **how)
        for name in ("value", "d_images", "d_labels", "d_valid_images", "d_rates"):
            np.testing.assert_array_equal(getattr(fewer, name), getattr(kept, name))
        np.testing.assert_array_equal(fewer.d_initial[0]["dense.weight"], kept.d_initial[0]["dense.weight"])


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_and_company_do_not_change_a_bit(threads):
    dish = make_dish()
    how = {"epochs": 2, "batch_size": 8, "optimizer": spd.Adam(1e-2)}
    one = motif_hypergradient([*CELLS, MIXED], SMALL, dish, threads=1, **how)
    many = motif_hypergradient([*CELLS, MIXED], SMALL, dish, threads=threads, **how)
    for name in ("value", "d_images", "d_labels", "d_valid_images", "d_rates"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
    np.testing.assert_array_equal(one.d_images[0], one.d_images[-1])


@pytest.mark.parametrize("threads", [2, 5])
def test_a_team_of_threads_does_not_change_a_bit(threads):
    shape, dish = spd.MotifShape(12, stacks=1, cells_per_stack=2), spd.Dish.random(per_class=4)
    for cell in CELLS[:2]:
        alone, team = (
            motif_hypergradient([cell], shape, dish, epochs=2, steps=4, batch_size=15, threads=n) for n in (1, threads)
        )
        for name in ("value", "step_loss", "d_images", "d_labels", "d_rates"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(team, name))


def test_float_points_where_double_does():
    """Ten steps: the cosine between the two derivatives. Switched masks make single cells differ, so the median is bounded."""
    dish = make_dish(n=60, n_valid=20, side=16)
    cosines = []
    for cell in CELLS:
        for seed in range(5):
            how = {"epochs": 4, "steps": 10, "optimizer": spd.Adam(1e-3), "seed": seed}
            single, double = (
                motif_hypergradient([cell], SMALL, dish, dtype=dtype, **how).d_images.ravel().astype(np.float64)
                for dtype in ("float32", "float64")
            )
            cosines.append(single @ double / np.linalg.norm(single) / np.linalg.norm(double))
    assert np.median(cosines) > 0.999


@pytest.mark.parametrize("steps", [1, 6], ids=["in the metric", "in training"])
def test_a_diverged_motif_has_no_derivative(steps):
    r = motif_hypergradient(CELLS, SMALL, make_dish(), epochs=2, steps=steps, optimizer=spd.SGD(1e38), batch_size=8)
    assert (r.diverged_step == 1).all()
    assert r.diverged.all()
    assert np.isnan(r.value).all()
    assert not r.d_images.any()
    assert not r.d_valid_images.any()
    assert not r.d_valid_labels.any()


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("metric is 'accuracy', expected 'probability' or 'loss'", {"metric": "accuracy"}),
        ("steps is 7, expected 0 to 3", {"steps": 7}),
        ("window is -1", {"window": -1}),
        ("memory_mib is -1, expected at least 0", {"memory_mib": -1}),
        ("memory_mib is nan, expected at least 0", {"memory_mib": float("nan")}),
        (r"step_weights has shape \(2,\), expected \(3,\)", {"step_weights": [1.0, 2.0]}),
        ("epochs is -1", {"epochs": -1}),
    ],
)
def test_bad_arguments(match, arguments):
    with pytest.raises(ValueError, match=match):
        motif_hypergradient(CELLS, SMALL, make_dish(), **({"epochs": 1, "batch_size": 8} | arguments))


class Level(spd.MotifShape):
    """Every stack as wide as the stem, so that cells read what 2x2 pooling left without a projection."""

    def cell_io(self):
        return [(stack, cell, self.stem_channels, self.stem_channels) for stack, cell, _, _ in super().cell_io()]

    @property
    def out_channels(self):
        return self.stem_channels


def test_a_pooling_that_nodes_read_passes_their_gradients_on():
    """Against central differences along random directions: error h^2 / 6 times a third derivative, and eps / h."""
    shape, rng = (
        Level(stacks=2, cells_per_stack=1, stem_channels=6, classes=3, image_channels=2),
        np.random.default_rng(3),
    )
    images, labels = rng.normal(size=(5, 2, 8, 8)), rng.integers(0, 3, 5)
    weights = initial_parameters(EDGES, shape)

    def gradient(at):
        return spd.motif_gradient([EDGES], shape, at, labels, [weights], metric="loss", dtype="float64")

    _, d_images = gradient(images)
    for _ in range(3):
        along, h = rng.normal(size=images.shape), 1e-6
        expected = (gradient(images + h * along)[0][0] - gradient(images - h * along)[0][0]) / (2 * h)
        assert (d_images[0] * along).sum() == pytest.approx(expected, rel=1e-5)
