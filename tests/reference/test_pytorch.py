"""The engine against the reference, a plain PyTorch implementation that shares no code with it. The first tests are of the reference itself.

Random cells of the space x motif shapes A, B, C: 20 cells in a normal run, 100 under the marker `verify`. Batch norm,
the optimisers, schedules and whole trainings are compared step for step, from the same weights in the same sample order.
"""

import itertools
import json
from functools import partial

import numpy as np
import pytest
import torch

from spd_fast import MOTIF_A, MOTIF_B, MOTIF_C, NASBENCH101, SGD, Adam, Cell, Dish, MotifShape, RMSProp
from spd_fast.engine.gradients import motif_gradient, parameter_gradient
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.training import prepared, train_motifs
from spd_fast.reference import pytorch as reference
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.nats_cell import NATS_OPS, NatsCell

SHAPES = {"A": MOTIF_A, "B": MOTIF_B, "C": MOTIF_C}
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
# One cell with everything in it: odd widths, truncation, sums, two projections and one added to the output.
BUSY = Cell(
    ["011001", "000101", "000110", "000001", "000001", "000000"], ["input", CONV3, POOL, CONV1, CONV3, "output"]
)
TRUNCATING = Cell(
    ["010001", "001110", "000001", "000001", "000001", "000000"], ["input", CONV1, CONV3, POOL, CONV1, "output"]
)
EDGES = NatsCell.parse(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
)
SIDES = [(8, 8), (5, 5), (12, 12), (16, 16), (6, 9), (4, 4)]
IMAGES = [5, 6, 4, 3, 5, 8]  # with the sides above; at 4 x 4 the last stack has one pixel an image
EPS32 = float(np.finfo(np.float32).eps)
EPS64 = float(np.finfo(np.float64).eps)

twenty_or_all = pytest.mark.parametrize(
    "index",
    [
        *range(20),
        *range(100, 110),
        *(pytest.param(i, marks=pytest.mark.verify) for i in (*range(20, 100), *range(110, 160))),
    ],
)
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny networks: PyTorch's thread pool costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cells(request):
    """100 cells of NAS-Bench-101, or of the package's own sampler where the data is absent; then 60 of NATS-Bench."""
    try:
        folder = request.getfixturevalue("data_dir")
    except pytest.skip.Exception:
        return random_cells(100, seed=0) + nats_cells(60)
    with np.load(folder / "nb101" / "nb101_test108.npz") as archive:
        columns = CellColumns(*(archive[name] for name in ("vertices", "edge_bits", "op_codes")))
    return [*columns[np.random.default_rng(0).choice(len(columns), 100, replace=False)], *nats_cells(60)]


def nats_cells(n):
    """Cells with a path of operations from input to output."""
    rng = np.random.default_rng(0)
    drawn = (NatsCell(tuple(NATS_OPS[code] for code in rng.integers(0, 5, 6))) for _ in itertools.count())
    return list(itertools.islice((cell for cell in drawn if cell.matrix.any()), n))


def drawn(index, shape, *, dtype, seed=0):
    """Images, labels and initial weights (batch norm's too are random) for one comparison; sides vary with `index`."""
    rng = np.random.default_rng([index, seed])
    n, (height, width) = IMAGES[index % len(IMAGES)], SIDES[index % len(SIDES)]
    images = rng.standard_normal((n, shape.image_channels, height, width)).astype(dtype)
    return images, rng.integers(0, shape.classes, n), rng


def weights_of(cell, shape, rng, dtype):
    drawn = initial_parameters(cell, shape, seed=int(rng.integers(2**31)), dtype=dtype)
    return {
        name: w + (0.2 * rng.standard_normal(w.shape)).astype(dtype) * (".bn." in name) for name, w in drawn.items()
    }


def assert_agree(got, expected, *, relative, absolute=0.0):
    """Every array of two dicts to a bound relative to its largest entry (or an absolute one)."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].shape == array.shape
        error, scale = np.abs(got[name] - array).max(), np.abs(array).max()
        assert error <= max(relative * scale, absolute), f"{name}: {error:.1e} of {scale:.1e}"


# ---- the reference itself


def test_reference_has_the_parameters_of_the_benchmark(data_dir):
    with np.load(data_dir / "nb101" / "nb101_test108.npz") as archive:
        columns = CellColumns(*(archive[name] for name in ("vertices", "edge_bits", "op_codes")))
        published = archive["trainable_parameters"]
    for row in np.random.default_rng(1).choice(len(columns), 200, replace=False):
        with torch.device("meta"):
            module = reference.Motif(columns[row], NASBENCH101)
        assert sum(w.numel() for w in module.parameters()) == published[row]


def test_reference_has_the_parameters_of_the_bench_cells(data_dir):
    for entry in json.loads((data_dir / "bench_cells.json").read_text())["cells"]:
        for name, shape in SHAPES.items():
            module = reference.Motif(Cell(entry["matrix"], entry["ops"]), shape)
            assert sum(w.numel() for w in module.parameters()) == entry["parameters"][name]


def test_reference_widths_by_hand():
    assert reference.widths(BUSY.matrix, 16, 16) == [16, 6, 5, 5, 5, 16]
    assert reference.widths(BUSY.matrix, 16, 32) == [16, 11, 11, 11, 10, 32]
    assert reference.widths(TRUNCATING.matrix, 32, 32) == [32, 11, 11, 11, 10, 32]
    assert reference.widths([[0, 1], [0, 0]], 16, 32) == [16, 32]


def test_reference_names_and_order():
    names = [name.removesuffix(".conv.weight") for name, _ in reference.Motif(BUSY, MOTIF_C).named_parameters()]
    assert [name for name in names if ".bn." not in name] == [
        "stem",
        "stacks.0.0.projection1",
        "stacks.0.0.vertex1",
        "stacks.0.0.projection2",
        "stacks.0.0.vertex3",
        "stacks.0.0.vertex4",
        "stacks.0.0.projection5",
        "dense.weight",
        "dense.bias",
    ]


def test_reference_forward_by_hand():
    """Batch norm made the identity and 1x1 weights of ones: every vertex value can be written down."""
    cell = Cell(["0101", "0011", "0001", "0000"], ["input", CONV1, POOL, "output"])
    shape = MotifShape(2, 1, 1, classes=2, image_channels=1)
    module = reference.build(cell, shape).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_var.fill_(1 - 1e-5)
        for name, w in module.named_parameters():
            w.fill_(float(".bn.weight" in name or ("stacks" in name and "conv" in name)))
        module.stem.conv.weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0])  # the image, and twice it
        module.dense.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        logits = module(torch.tensor([[[[1.0, -4.0], [0.0, 3.0]]]], dtype=torch.float64))
    # stem (1, 0, 0, 3) and (2, 0, 0, 6); projections 3 (1, 0, 0, 3); vertex 1 the same; vertex 2 all 9.
    assert logits.numpy() == pytest.approx(np.array([[(3 + 9) / 4 + (3 + 9) / 4, 9 + (3 + 9) / 4]]), rel=1e-12)


def test_reference_rmsprop_by_hand():
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    stepper = reference.RMSPropTF1([w], lr=0.5, alpha=0.9, eps=1.0, momentum=0.9, weight_decay=0.1)
    w.grad = torch.tensor([1.9], dtype=torch.float64)
    stepper.step()  # g = 2, mean square 0.9 + 0.4, step 0.5 * 2 / sqrt(2.3)
    first = 1 / np.sqrt(2.3)
    assert w.item() == pytest.approx(1 - first, rel=1e-15)
    stepper.step()
    g = 1.9 + 0.1 * (1 - first)
    second = 0.9 * first + 0.5 * g / np.sqrt(0.9 * 1.3 + 0.1 * g**2 + 1)
    assert w.item() == pytest.approx(1 - first - second, rel=1e-15)


def test_reference_margin_by_hand():
    """The closest call among ReLU inputs and pooling windows: no further than the smallest ReLU input."""
    module = reference.build(Cell(["010", "001", "000"], ["input", POOL, "output"]), MotifShape(1, 1, 1, 2, 1))
    images = np.zeros((1, 1, 4, 4))
    images[0, 0, 0, 0], images[0, 0, 3, 3] = 1.0, 2.0
    inputs = []
    for layer in (module.stem.bn, module.stacks[0][0].projection1.bn):
        layer.register_forward_hook(lambda _layer, _inputs, output: inputs.append(output.detach().abs().min().item()))
    module.train()(torch.tensor(images))
    assert 0 < reference.margin(module, images) <= min(inputs)


# ---- the engine against it


@twenty_or_all
@each_shape
def test_gradients_in_double(cells, index, shape):
    """Logits, loss and probability, every gradient in the weights and in the images."""
    cell = cells[index]
    images, labels, rng = drawn(index, shape, dtype=np.float64)
    weights = weights_of(cell, shape, rng, np.float64)
    module = reference.build(cell, shape, weights)
    result = train_motifs([cell], shape, Dish(images, labels), epochs=0, init=[weights], dtype="float64")
    expected = reference.metrics(module, images, labels)
    assert_agree({"logits": result.train.logits[0]}, {"logits": expected["logits"]}, relative=1e-9)
    for name in ("loss", "probability", "accuracy"):
        assert getattr(result.train, name)[0] == pytest.approx(expected[name], rel=1e-9)
    loss, d_weights, d_images = parameter_gradient([cell], shape, images, labels, [weights], dtype="float64")
    expected_loss, expected_d_weights, expected_d_images = reference.gradient(module, images, labels)
    assert loss[0] == pytest.approx(expected_loss, rel=1e-9)
    # Some gradients are zero in exact arithmetic (a shift that a later batch norm takes out again): what is left is
    # rounding of a sum over every pixel, whose terms are as large as other weights' gradients.
    most = max(np.abs(g).max() for g in expected_d_weights.values())
    residue = 8 * EPS64 * np.sqrt(images[:, 0].size) * most
    assert_agree(d_weights[0], expected_d_weights, relative=1e-9, absolute=residue)
    assert_agree({"images": d_images[0]}, {"images": expected_d_images}, relative=1e-9)
    probability, d_images = motif_gradient([cell], shape, images, labels, [weights], dtype="float64")
    expected_probability, _, expected_d_images = reference.gradient(module, images, labels, metric="probability")
    assert probability[0] == pytest.approx(expected_probability, rel=1e-9)
    assert_agree({"images": d_images[0]}, {"images": expected_d_images}, relative=1e-9)


@twenty_or_all
@each_shape
def test_gradients_in_float(cells, index, shape):
    """In float32, against the reference in double.

    Rounding a sum of n products acts like a relative change of its weights by eps sqrt(n), Winograd's by about 8 times that: how far
    the reference's own output and gradient move under such a change of every weight and image (the largest of three draws) is the
    bound; to it comes the rounding of the sum over all pixels, whose terms are as large as other weights' gradients. Inputs are drawn until
    rounding can switch no ReLU and no pooling winner (20 times the usual rounding of an activation away).
    """
    cell = cells[index]
    for seed in itertools.count():
        images, labels, rng = drawn(index, shape, dtype=np.float32, seed=seed)
        images = np.ascontiguousarray(images[:, :, :8, :8])
        few = max(2, 128 // images[0, 0].size)  # few enough activations to find such inputs
        images, labels = images[:few], labels[:few]
        weights = weights_of(cell, shape, rng, np.float32)
        module = reference.build(cell, shape, weights)
        if reference.margin(module, images) > 2e-5:
            break

    def rounded(array):
        return array * (1 + 8 * EPS32 * np.sqrt(np.prod(array.shape[1:])) * rng.standard_normal(array.shape))

    def outcome(module, images):
        _, d_weights, d_images = reference.gradient(module, images, labels)
        return d_weights | {"images": d_images, "logits": reference.metrics(module, images, labels)["logits"]}

    expected = outcome(module, images)
    moved = [
        outcome(reference.build(cell, shape, {n: rounded(w) for n, w in weights.items()}), rounded(images))
        for _ in range(3)
    ]
    result = train_motifs([cell], shape, Dish(images, labels), epochs=0, init=[weights])
    _, d_weights, d_images = parameter_gradient([cell], shape, images, labels, [weights])
    got = d_weights[0] | {"images": d_images[0], "logits": result.train.logits[0]}
    typical = max(np.sqrt(np.mean(g**2)) for g in expected.values())
    for name, g in expected.items():
        bound = max(np.linalg.norm(m[name] - g) for m in moved)
        residue = EPS32 * np.sqrt(images[:, 0].size * g.size) * typical
        assert np.linalg.norm(got[name] - g) <= bound + residue, name


def assert_trainings_agree(
    cell, shape, dish, ours, theirs, *, batch_size, epochs, rates=None, drop_last=False, tolerance=1e-6
):
    """A whole training, step for step: losses, accuracies, weights, running statistics, final metrics of both kinds."""
    rng = np.random.default_rng(2)
    weights = weights_of(cell, shape, rng, np.float64)
    order = np.stack([rng.permutation(len(dish.images)) for _ in range(epochs)])
    run = partial(
        train_motifs,
        [cell],
        shape,
        dish,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=ours,
        schedule=rates,
        init=[weights],
        order=order,
        drop_last=drop_last,
        dtype="float64",
        record=["step_loss", "step_accuracy"],
    )
    result = run()
    module = reference.build(cell, shape, weights)
    losses, accuracies = theirs(
        module, dish.images, dish.labels, order, batch_size=batch_size, rates=rates, drop_last=drop_last
    )
    assert not result.diverged[0]
    assert result.recorded["step_loss"][0] == pytest.approx(losses, rel=tolerance)
    assert result.recorded["step_accuracy"][0] == pytest.approx(accuracies, abs=1e-12)
    assert result.loss[0] == pytest.approx(losses.reshape(epochs, -1).mean(axis=1), rel=tolerance)
    assert result.accuracy[0] == pytest.approx(accuracies.reshape(epochs, -1).mean(axis=1), abs=1e-12)
    assert_agree(result.initial[0], weights, relative=0)
    assert_agree(result.parameters[0], reference.parameters_of(module), relative=tolerance)
    assert_agree(result.running[0], reference.running_of(module), relative=tolerance)
    for statistics, got in (("batch", result), ("running", run(statistics="running"))):
        sets = {"train": (dish.images, dish.labels)}
        if dish.valid_images is not None:
            sets["valid"] = (dish.valid_images, dish.valid_labels)
        for name, (images, labels) in sets.items():
            expected = reference.metrics(module, images, labels, statistics=statistics)
            metrics = getattr(got, name)
            assert_agree({"logits": metrics.logits[0]}, {"logits": expected["logits"]}, relative=tolerance)
            assert metrics.loss[0] == pytest.approx(expected["loss"], rel=tolerance)
            assert metrics.probability[0] == pytest.approx(expected["probability"], rel=tolerance)
            assert metrics.accuracy[0] == pytest.approx(expected["accuracy"], abs=1e-12)


@twenty_or_all
@each_shape
def test_thirty_adam_steps_in_double(cells, index, shape):
    """Six epochs of five batches, the last one of 6 instead of 8 images.

    Not fewer: where images are 4 or 5 pixels wide the last stack of B has one pixel an image, and batch norm over two values
    is nearly a step function. With batches of 4 and 2 the reference departs by 1e-2 from itself when its weights are
    changed by 1e-15; with 8 and 6 by 4e-12.
    """
    rng = np.random.default_rng(index)
    height, width = SIDES[index % len(SIDES)]
    dish = Dish(rng.standard_normal((38, 3, height, width)), rng.integers(0, 10, 38))
    assert_trainings_agree(
        cells[index],
        shape,
        dish,
        Adam(lr=2e-3, weight_decay=1e-4),
        partial(reference.train, lr=2e-3, weight_decay=1e-4),
        batch_size=8,
        epochs=6,
    )


OPTIMIZERS = {
    "adam": (Adam(3e-3, (0.8, 0.95), 1e-6), partial(reference.train, lr=3e-3, betas=(0.8, 0.95), eps=1e-6)),
    "sgd": (
        SGD(0.05, weight_decay=1e-2),
        partial(reference.train, optimizer=torch.optim.SGD, lr=0.05, weight_decay=1e-2),
    ),
    "momentum": (SGD(0.02, 0.9), partial(reference.train, optimizer=torch.optim.SGD, lr=0.02, momentum=0.9)),
    "nesterov": (
        SGD(0.02, 0.9, nesterov=True, weight_decay=1e-3),
        partial(reference.train, optimizer=torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ),
    "rmsprop": (
        RMSProp(0.05, weight_decay=1e-3),
        partial(reference.train, optimizer=reference.RMSPropTF1, lr=0.05, weight_decay=1e-3),
    ),
}


@pytest.mark.parametrize("drop_last", [False, True], ids=["keep-last", "drop-last"])
@pytest.mark.parametrize("rates", [None, "cosine", "array"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_schedules_in_double(optimizer, rates, drop_last):
    ours, theirs = OPTIMIZERS[optimizer]
    rng = np.random.default_rng(3)
    dish = Dish(rng.standard_normal((17, 3, 8, 8)), rng.integers(0, 10, 17))
    steps = 3 * (3 if drop_last else 4)
    assert_trainings_agree(
        BUSY,
        MOTIF_C,
        dish,
        ours,
        theirs,
        batch_size=5,
        epochs=3,
        rates=ours.lr * rng.uniform(0, 1, steps) if rates == "array" else rates,
        drop_last=drop_last,
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize(
    "size", [(5, 5), (7, 11), (12, 6), (8, 13), (12, 12), (16, 4), (17, 17), (28, 28), (64, 33)], ids=str
)
@pytest.mark.parametrize("cell", [BUSY, TRUNCATING, EDGES], ids=["busy", "truncating", "edges"])
def test_image_sizes_and_channels_in_double(cell, size, channels):
    """Sides that fill no vector, 2x2 pooling of odd sides, batches that fill no block, a validation set of another size."""
    shape = MotifShape(7, stacks=3, cells_per_stack=2, classes=4, image_channels=channels)
    rng = np.random.default_rng(4)
    images = rng.standard_normal((12, channels, *size))
    dish = Dish(images[:7], rng.integers(0, 4, 7), images[7:], rng.integers(0, 4, 5))
    assert_trainings_agree(
        cell, shape, dish, Adam(lr=1e-3), partial(reference.train, lr=1e-3), batch_size=3, epochs=2, drop_last=True
    )
    weights = weights_of(cell, shape, rng, np.float64)
    _, _, d_images = parameter_gradient([cell], shape, dish.images, dish.labels, [weights], dtype="float64")
    _, _, expected = reference.gradient(reference.build(cell, shape, weights), dish.images, dish.labels)
    assert_agree({"images": d_images[0]}, {"images": expected}, relative=1e-9)


@pytest.mark.parametrize("classes", [2, 11, 100, 1000])
def test_soft_labels_in_double(classes):
    """Labels of any sum; the true class of the metrics is the heaviest one."""
    shape = MotifShape(8, 2, 1, classes, 3)
    rng = np.random.default_rng(5)
    labels = rng.uniform(0, 1, (14, classes)) / classes * 1.5
    images = rng.standard_normal((14, 3, 8, 8))
    dish = Dish(images[:9], labels[:9], images[9:], labels[9:])
    assert_trainings_agree(BUSY, shape, dish, Adam(lr=2e-3), partial(reference.train, lr=2e-3), batch_size=4, epochs=4)
    weights = weights_of(BUSY, shape, rng, np.float64)
    for metric in ("loss", "probability"):
        value, d_images = motif_gradient([BUSY], shape, images, labels, [weights], metric=metric, dtype="float64")
        module = reference.build(BUSY, shape, weights)
        expected_value, _, expected = reference.gradient(module, images, labels, metric=metric)
        assert value[0] == pytest.approx(expected_value, rel=1e-9)
        assert_agree({"images": d_images[0]}, {"images": expected}, relative=1e-9)


def test_running_statistics_of_a_large_set_in_double():
    """Read in several batches, the last one smaller; batch norm's momentum is an argument."""
    rng = np.random.default_rng(6)
    images, labels = rng.standard_normal((263, 3, 8, 8)), rng.integers(0, 10, 263)
    dish = Dish(images[:20], labels[:20], images[20:], labels[20:])
    weights = weights_of(BUSY, MOTIF_B, rng, np.float64)
    order = np.stack([rng.permutation(20) for _ in range(3)])
    result = train_motifs(
        [BUSY],
        MOTIF_B,
        dish,
        epochs=3,
        batch_size=6,
        optimizer=Adam(lr=1e-3),
        init=[weights],
        order=order,
        dtype="float64",
        statistics="running",
        batch_norm_momentum=0.3,
    )
    module = reference.build(BUSY, MOTIF_B, weights)
    reference.train(module, dish.images, dish.labels, order, batch_size=6, lr=1e-3, norm_momentum=0.3)
    assert_agree(result.running[0], reference.running_of(module), relative=1e-6)
    expected = reference.metrics(module, dish.valid_images, dish.valid_labels, statistics="running")
    assert_agree({"logits": result.valid.logits[0]}, {"logits": expected["logits"]}, relative=1e-6)
    assert result.valid.loss[0] == pytest.approx(expected["loss"], rel=1e-6)
    assert result.valid.accuracy[0] == pytest.approx(expected["accuracy"], abs=1e-12)


def test_default_orders_are_used_as_reported(cells):
    """Without `order`, epochs are permutations, the same for every motif: the reference trained on them ends alike."""
    rng = np.random.default_rng(7)
    dish = Dish(rng.standard_normal((10, 3, 8, 8)), rng.integers(0, 10, 10))
    order = prepared(InnerLoop(epochs=3, batch_size=4, seed=5), cells[:1], MOTIF_C, dish).order
    assert all(np.array_equal(np.sort(row), np.arange(10)) for row in order)
    result = train_motifs(cells[:3], MOTIF_C, dish, epochs=3, batch_size=4, optimizer=Adam(), seed=5, dtype="float64")
    for k in range(3):
        module = reference.build(cells[k], MOTIF_C, result.initial[k])
        reference.train(module, dish.images, dish.labels, order, batch_size=4)
        assert_agree(result.parameters[k], reference.parameters_of(module), relative=1e-6)


def test_float_training_is_as_close_to_double_as_pytorchs(cells):
    """30 Adam steps in float32: the mean error of the step losses, beside that of PyTorch in float32.

    A switched ReLU makes a trajectory jump, in either implementation (from 1e-8 to 1e-3): only the mean over 15 motifs, which the
    jumps make up, can be compared, and only to a small factor.
    """
    rng = np.random.default_rng(8)
    dish = Dish(rng.standard_normal((20, 3, 8, 8)).astype(np.float32), rng.integers(0, 10, 20))
    order = np.stack([rng.permutation(20) for _ in range(6)])
    errors = []
    for cell, shape in itertools.product(cells[:5], SHAPES.values()):
        weights = weights_of(cell, shape, rng, np.float32)
        settings = {"init": [weights], "order": order, "epochs": 6, "batch_size": 4, "record": ["step_loss"]}
        ours = train_motifs([cell], shape, dish, optimizer=Adam(), **settings).recorded["step_loss"][0]
        double, single = (
            reference.train(
                reference.build(cell, shape, weights, dtype=dtype), dish.images, dish.labels, order, batch_size=4
            )[0]
            for dtype in (torch.float64, torch.float32)
        )
        errors.append([np.abs(losses / double - 1).mean() for losses in (ours, single)])
    ours, pytorchs = np.mean(errors, axis=0)
    assert ours <= 4 * pytorchs
