"""Whole trainings, pinned: if a number that the inner loop gives ever changes, it shows here first.

A motif C, a motif of a NATS cell and a perceptron are trained for six steps, each with another optimizer. Pinned are the losses of the
steps, some weights after them, and some derivatives of the validation loss through all of them. The pins are those of the reference in
PyTorch, in double; the engine is held against them in both types on every instruction set that the machine runs. Beside them stand digests
of the exact results in float32. Bits are promised for one build alone: another compiler contracts other products with sums, and another C
library rounds `exp` otherwise.

`python tests/engine/test_golden.py` prints pins and digests anew.
"""

import dataclasses
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

import spd_fast as spd
from spd_fast import _core

Array = npt.NDArray[Any]
Results = dict[str, Array]

STEPS, BATCH, IMAGES, VALID = 6, 5, 10, 6
ORDER: Final = [[0, 5, 2, 7, 4, 9, 6, 1, 8, 3], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]]
INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


@dataclasses.dataclass(frozen=True)
class Case:
    """One training. `seed` of its images is such that no ReLU and no pooling comes near a kink: `test_rounding_crosses_no_kink`."""

    candidate: Any
    shape: Any
    optimizer: Any
    sides: tuple[int, int]
    seed: int

    @property
    def dish(self) -> spd.Dish:
        """Images and soft labels that are multiples of 2**-23: the same numbers in both types, on every machine."""
        images = drawn(self.seed, IMAGES + VALID, self.shape.image_channels, *self.sides)
        labels = (drawn(self.seed, IMAGES + VALID, self.shape.classes) + 1) / 4
        labels[np.arange(len(labels)), np.arange(len(labels)) % self.shape.classes] += 0.5
        return spd.Dish(images[:IMAGES], labels[:IMAGES], images[IMAGES:], labels[IMAGES:])

    @property
    def training(self) -> dict[str, Any]:
        """Keywords of training."""
        return {"epochs": len(ORDER), "batch_size": BATCH, "order": ORDER, "optimizer": self.optimizer, "seed": 1}


def drawn(seed: int, *shape: int) -> Array:
    size = int(np.prod(shape))
    return ((np.random.PCG64(seed + size).random_raw(size) >> 40).astype(np.float64) / 2**23 - 1).reshape(shape)


CASES: Final = {
    "motif C": Case(
        spd.Cell(
            ["01111", "00101", "00010", "00001", "00000"],
            ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output"],
        ),
        spd.MOTIF_C,
        spd.Adam(2e-3, weight_decay=1e-6),
        sides=(8, 8),
        seed=9,
    ),
    "NATS cell": Case(
        spd.NatsCell.parse(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
        ),
        spd.MotifShape(8, stacks=2, classes=4),
        spd.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
        sides=(6, 6),
        seed=25,
    ),
    "perceptron": Case(spd.Perceptron(1.5), spd.PerceptronShape(7, classes=3), spd.RMSProp(0.05), sides=(1, 5), seed=3),
}

PINS: Final[dict[str, dict[str, list[float]]]] = {
    "motif C": {
        "losses": [
            8.483629767628369,
            8.34467152986223,
            8.51983776686997,
            7.691690702237016,
            7.729801710022043,
            7.955254728405814,
        ],
        "weights": [
            0.08387257281051075,
            0.03215802815566312,
            0.021546858448044187,
            0.23884152612006648,
            -0.11871765662996406,
            -0.08242085540515899,
            -0.25347267968672543,
            -0.08386042796841818,
        ],
        "d_images": [-0.00033391864620148295, 0.00026695986818423093, -0.00045314360097271705],
        "d_labels": [0.009698986830586617, -0.0002972488352069574, 0.02681489671748768],
        "d_valid_images": [-0.0009714133534417795, 0.00047559048379393587, -0.0020500905413620464],
        "d_valid_labels": [0.31444709131179716, 0.32188013711708185, 0.32594069763291045],
        "d_rates": [
            -42.4887964728745,
            -40.170172702683764,
            -37.823984155649086,
            -37.56427489899068,
            -38.6959296633209,
            -38.02930994794713,
        ],
    },
    "NATS cell": {
        "losses": [
            1.9201681609571348,
            2.241535853317684,
            1.956521517443623,
            2.0035752440371026,
            2.1509255149226645,
            1.7497355034458917,
        ],
        "weights": [
            0.0767329951965136,
            0.05467631337124313,
            0.0992231371740861,
            -0.25278817891165534,
            0.07973150101539923,
            -0.07289461011498174,
            0.08327964484846179,
            -0.05280861734836967,
            -0.08790786447164493,
        ],
        "d_images": [-0.0004887061493230188, -0.0005737595542418466, -0.0027103018858232047],
        "d_labels": [0.037193824435309074, 0.038108606202635384, -0.04057134898106185],
        "d_valid_images": [-0.0172857625658214, -0.0030914923631924322, 0.0017707639296579774],
        "d_valid_labels": [0.3011137632793949, 0.2078282807699357, 0.16922219966783336],
        "d_rates": [
            0.17424924792607452,
            -0.21578608532299187,
            0.5201187771626954,
            0.5279291263008739,
            0.20841036956168763,
            -0.13893174196389801,
        ],
    },
    "perceptron": {
        "losses": [
            1.4338357706593985,
            1.4302008599962823,
            1.2468779001201171,
            1.544361866326966,
            1.353486201130879,
            1.37417325846111,
        ],
        "weights": [0.0866513251562938, 0.32292694316033566],
        "d_images": [-4.039070331992617e-05, -2.7210112242249358e-05, 9.65745620961247e-06],
        "d_labels": [0.005433242932616147, -0.011846750850994013, 0.0012571533379255818],
        "d_valid_images": [0.0006303154518254766, -0.000921314960342881, -0.00014154613469138081],
        "d_valid_labels": [0.15808013920645853, 0.15832015676020159, 0.1593852828783491],
        "d_rates": [
            -0.08206340538515013,
            -0.0665390477739372,
            0.0018592732396110747,
            -0.10244020571661373,
            -0.048603458745021526,
            -0.0020700304150510084,
        ],
    },
}

PINNED_BUILD: Final = "GNU 12.2.0, glibc 2.36, -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast -Wall -Wextra -Wno-psabi -Wno-ignored-attributes -Wno-unknown-pragmas"
DIGESTS: Final[dict[str, str]] = {
    "avx512": "50664a4a4f9d93cdb7d4a99fef8c0d9040ebe4bcd9bd6c73cbd6cb9e88e7d5e8",
    "avx2": "c8e07054ef72d6daecb4e97c09144d073b099512c16d05fa28e2b0b48d248195",
    "baseline": "c2115f19458c611ea221de08875169883524bc3f5e79e61e664aaf5b2c4208a2",
}


# ---- the engine


def measured(case: Case, dtype: str, init: Any = "shared") -> tuple[Results, str]:
    """What the engine gives: the numbers that are pinned, and a digest of all."""
    training, data = {**case.training, "init": init, "dtype": dtype}, case.dish
    trained = spd.train_motifs([case.candidate], case.shape, data, record=["step_loss"], **training)
    through = spd.motif_hypergradient([case.candidate], case.shape, data, metric="loss", **training)
    names = ("d_images", "d_labels", "d_valid_images", "d_valid_labels", "d_rates")
    derivatives = {name: getattr(through, name)[0] for name in names}
    everything = [trained.recorded["step_loss"], *trained.parameters[0].values(), *derivatives.values()]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in everything)).hexdigest()
    return picked(trained.recorded["step_loss"][0], trained.parameters[0], derivatives), digest


def picked(losses: Array, weights: dict[str, Array], derivatives: Results) -> Results:
    """The losses and rates of all steps, and some of the other numbers."""
    some = {name: array.ravel()[:: array.size // 3][:3] for name, array in derivatives.items() if name != "d_rates"}
    return {
        "losses": np.asarray(losses, np.float64),
        "weights": np.array([array.ravel()[0] for array in weights.values()][::3], np.float64),
        **{name: np.asarray(array, np.float64) for name, array in some.items()},
        "d_rates": derivatives["d_rates"],
    }


def report() -> dict[str, Any]:
    """What one process of one instruction set tells of all cases."""
    results: dict[str, Any] = {"isa": _core.isa}
    for dtype in ("float32", "float64"):
        for name, case in CASES.items():
            numbers, digest = measured(case, dtype)
            results[f"{name} {dtype}"] = {key: array.tolist() for key, array in numbers.items()}
            results[f"{name} {dtype} digest"] = digest
    return results


@functools.cache
def reported(isa: str) -> dict[str, Any]:
    """`report` of another process."""
    run = subprocess.run(
        [sys.executable, __file__, "--report"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SPD_FAST_ISA": isa},
    )
    if "expected one of those that this machine runs" in run.stderr:
        pytest.skip(f"this machine does not run {isa}")
    assert run.returncode == 0, run.stderr
    results: dict[str, Any] = json.loads(run.stdout)
    assert results["isa"] == isa
    return results


# ---- the reference


def module_of(case: Case, weights: dict[str, Array]) -> Any:
    """The case's network in PyTorch, in double."""
    import torch

    from spd_fast.reference import pytorch as reference

    if not isinstance(case.candidate, spd.Perceptron):
        return reference.build(case.candidate, case.shape, weights)

    class Perceptron(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("hidden1", "hidden2", "dense"):
                units, features = weights[f"{name}.weight"].shape
                self.add_module(name, torch.nn.Linear(features, units))

        def forward(self, x: Any) -> Any:
            x = x.flatten(1)
            for name in ("hidden1", "hidden2"):
                x = torch.sigmoid(case.candidate.slope * self.get_submodule(name)(x))
            return self.dense(x)

    module = Perceptron().double()
    module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return module


def initial_weights(case: Case) -> dict[str, Array]:
    how = {"seed": 1, "dtype": "float64"}
    return spd.train_motifs([case.candidate], case.shape, case.dish, epochs=0, **how).initial[0]


def reference_results(case: Case) -> Results:
    """The numbers that are pinned, by PyTorch in double: training as it is usually written, derivatives by `create_graph`."""
    import torch

    from spd_fast.reference import pytorch as reference

    data, options = case.dish, dataclasses.asdict(case.optimizer)
    kinds = {"Adam": torch.optim.Adam, "SGD": torch.optim.SGD, "RMSProp": reference.RMSPropTF1}
    kind = type(case.optimizer).__name__
    trained = module_of(case, initial_weights(case))
    losses, _ = reference.train(
        trained, data.images, data.labels, ORDER, batch_size=BATCH, optimizer=kinds[kind], **options
    )
    value, leaves = reference.unrolled(
        module_of(case, initial_weights(case)),
        {name: getattr(data, name) for name in ("images", "labels", "valid_images", "valid_labels")},
        np.reshape(ORDER, (STEPS, BATCH)),
        optimizer=kind.lower(),
        rates=[case.optimizer.lr] * STEPS,
        **options,
    )
    del leaves["initial"]
    found = torch.autograd.grad(value, list(leaves.values()))
    derivatives = {f"d_{name}": gradient.numpy() for name, gradient in zip(leaves, found, strict=True)}
    return picked(losses, reference.parameters_of(trained), derivatives)


# ---- the tests


@functools.cache
def growth(name: str) -> dict[str, float]:
    """How much a relative change of the initial weights grows, in each kind of result: five changes of 2**-26 in double.

    One that shrinks counts as 1: what is rounded last does not shrink.
    """
    case = CASES[name]
    start, (unchanged, _) = initial_weights(case), measured(case, "float64")
    factors = dict.fromkeys(unchanged, 1.0)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        moved = {key: array * (1 + 2.0**-26 * rng.choice([-1, 1], array.shape)) for key, array in start.items()}
        for key, array in measured(case, "float64", [moved])[0].items():
            change = np.abs(array - unchanged[key]).max() / np.abs(unchanged[key]).max()
            factors[key] = max(factors[key], change * 2.0**26)
    return factors


def bound(name: str, key: str, dtype: str) -> float:
    """Relative to the largest pin: a step rounds about as much as if all weights were moved by one eps, and that grows as `growth` says; steps
    are independent of each other; a factor of 4 for the worst of many numbers."""
    return float(4 * np.sqrt(STEPS) * growth(name)[key] * np.finfo(dtype).eps)


def assert_pinned(name: str, results: dict[str, Any], dtype: str) -> None:
    assert set(results) == set(PINS[name])
    for key, pins in PINS[name].items():
        error = np.abs(np.subtract(results[key], pins)).max() / np.abs(pins).max()
        assert error <= bound(name, key, dtype), f"{key} of {name} in {dtype}: {results[key]}, expected {pins}"


@pytest.mark.parametrize("name", CASES)
def test_the_pins_are_the_reference_s(name: str) -> None:
    assert_pinned(name, {key: array.tolist() for key, array in reference_results(CASES[name]).items()}, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", CASES)
def test_the_engine_gives_the_pinned_numbers(name: str, isa: str, dtype: str) -> None:
    assert_pinned(name, reported(isa)[f"{name} {dtype}"], dtype)


@pytest.mark.parametrize("name", CASES)
def test_double_precision_with_avx512_is_that_of_avx2(name: str) -> None:
    digest = f"{name} float64 digest"
    assert reported("avx512")[digest] == reported("avx2")[digest]


@pytest.mark.parametrize("name", ["motif C", "NATS cell"])
def test_rounding_crosses_no_kink(name: str) -> None:
    """Inputs of ReLUs and pooling windows are batch norm's outputs or sums of a few: of size 1, in float32 right to 1e-5 (Winograd)."""
    from spd_fast.reference import pytorch as reference

    case = CASES[name]
    batches = np.reshape(ORDER, (STEPS, BATCH))
    for step in range(STEPS + 1):
        how = {**case.training, "dtype": "float64", "metric": "loss", "steps": step}
        weights = spd.motif_hypergradient([case.candidate], case.shape, case.dish, **how).parameters[0]
        images = case.dish.images[batches[step]] if step < STEPS else case.dish.valid_images
        assert reference.margin(module_of(case, weights), images) > 3e-5


def build() -> str:
    """What decides the last bits, but for the processor."""
    return f"{_core.compiler}, {' '.join(platform.libc_ver())}, {_core.flags}"


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_bits_are_those_of_this_build(isa: str) -> None:
    """If a change of the engine is meant to change bits, say so in CHANGELOG.md and pin them anew."""
    reported("avx2")  # the C library rounds `exp` otherwise where a processor has no fused multiply-add
    if build() != PINNED_BUILD:
        pytest.skip(f"bits are pinned of another build: {PINNED_BUILD}")
    digests = "".join(reported(isa)[f"{name} float32 digest"] for name in CASES)
    assert hashlib.sha256(digests.encode()).hexdigest() == DIGESTS[isa]


def main() -> None:
    if "--report" in sys.argv:
        print(json.dumps(report()))
        return
    pins = {
        name: {key: array.tolist() for key, array in reference_results(case).items()} for name, case in CASES.items()
    }
    print(f"PINS: Final[dict[str, dict[str, list[float]]]] = {pins!r}\n\nPINNED_BUILD: Final = {build()!r}")
    digests = {}
    for isa in INSTRUCTION_SETS:
        each = "".join(reported(isa)[f"{name} float32 digest"] for name in CASES)
        digests[isa] = hashlib.sha256(each.encode()).hexdigest()
    print(f"DIGESTS: Final[dict[str, str]] = {digests!r}")


if __name__ == "__main__":
    main()
