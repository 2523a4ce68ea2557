"""The settings of recipes.

A recipe has four groups of settings: `motif`, `dish`, `inner` (how weights are trained) and `outer` (how the dish is changed). A setting
has a dotted name such as ``inner.epochs``. Unknown names, wrong types and values out of range are refused when a recipe is made, so
that every recipe can be run. The text under a setting is what ``spd-fast recipes NAME`` prints.

References
----------
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method: sections 3 and 4
("the paper").
"""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

import spd_fast.motif as motifs
from spd_fast.base.errors import did_you_mean
from spd_fast.base.types import checked_instance, plain
from spd_fast.learnables.learnable import Conditions, DishForm
from spd_fast.learnables.rates import learning_rates
from spd_fast.learnables.table import LEARNABLES
from spd_fast.spaces.perceptron import PerceptronShape

__all__ = [
    "REFERENCE_SCORES",
    "SCHEMA",
    "AdamSettings",
    "CMAESSettings",
    "DishSettings",
    "InnerSettings",
    "MotifSettings",
    "OuterSettings",
    "PerceptronSettings",
    "RMSPropSettings",
    "Recipe",
    "SGDSettings",
    "ScaleSettings",
    "checked_recipe",
]

REFERENCE_SCORES: Final = tuple(k / 2 for k in range(-6, 7))
"""The normal scores at which `OuterSettings.reference_losses` states losses: -3 to 3 in steps of 1/2."""

SCHEMA: Final = "spd_fast.recipe/2"
"""Version of the JSON form; it changes when an older reader could misread a newer recipe."""

_RENAMED: Final = {
    "inner.initializer": "inner.init_distribution",
    "outer.kept_out": "outer.validation_cells",
}
"""The present names of settings of schema 1. Nothing reads the old names; an error suggests the present ones."""
_SHAPES: Final = {
    "A": motifs.MOTIF_A,
    "B": motifs.MOTIF_B,
    "C": motifs.MOTIF_C,
    "NASBENCH101": motifs.NASBENCH101,
}


def _named_shape(value: Any) -> Any:
    """Replace the name of a motif shape by its numbers."""
    if not isinstance(value, str):
        return value
    if value not in _SHAPES:
        raise ValueError(f"unknown motif {value!r}, expected one of {', '.join(_SHAPES)} or the three numbers")
    shape = _SHAPES[value]
    return {
        "stem_channels": shape.stem_channels,
        "stacks": shape.stacks,
        "cells_per_stack": shape.cells_per_stack,
    }


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _of_python(cls, fields: Any) -> Any:
        """Take numbers and texts of numpy, and arrays of them, for those of Python."""
        return _plain_in(fields)


def _plain_in(value: Any) -> Any:
    """Return a value with all of numpy's values in it replaced by Python's."""
    if type(value) is dict:
        return {name: _plain_in(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain_in, value))
    return value.tolist() if isinstance(value, np.ndarray) else plain(value)


Rate = Annotated[float, Field(gt=0, le=10)]
Scale = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]


class MotifSettings(_Settings):
    """The network built around a cell (the paper, figure 1). The names "A", "B" and "C" stand for the paper's numbers."""

    stem_channels: int = Field(ge=1, le=1024)
    """Channels after the stem and in the first stack. They double from stack to stack. Motif A has 32, B and C have 16."""
    stacks: int = Field(default=1, ge=1, le=8)
    """Number of stacks of cells, with a 2x2 max-pool between them. Motifs A and C have 1, B has 3."""
    cells_per_stack: int = Field(default=1, ge=1, le=16)
    """Number of cells in a stack. Motif A has 3, B and C have 1."""

    @property
    def name(self) -> str:
        """The letter of the paper's motif with these numbers, or the numbers themselves."""
        numbers = (self.stem_channels, self.stacks, self.cells_per_stack)
        for name, shape in _SHAPES.items():
            if numbers == (shape.stem_channels, shape.stacks, shape.cells_per_stack):
                return name
        return f"{self.stem_channels} channels, {self.stacks}x{self.cells_per_stack}"


class PerceptronSettings(_Settings):
    """A perceptron in place of a network around a cell. Its sigmoids have the candidate's slope (Rawal et al. 2020)."""

    hidden: int = Field(ge=1, le=65_536)
    """Number of units in each hidden layer. Rawal et al. 2020: 1."""
    layers: int = Field(default=2, ge=1, le=64)
    """Number of hidden layers. Rawal et al. 2020: 2."""

    @property
    def name(self) -> str:
        """The number of units of every hidden layer."""
        return "-".join([str(self.hidden)] * self.layers)


def _kind_of_motif(value: Any) -> str:
    is_perceptron = isinstance(value, PerceptronSettings) or (isinstance(value, Mapping) and "hidden" in value)
    return "perceptron" if is_perceptron else "cell"


class DishSettings(_Settings):
    """The dish before learning (the paper, section 3.3)."""

    images: int = Field(default=200, ge=2, le=100_000)
    """Number of training images, the same for each class. The paper: 200."""
    classes: int = Field(default=10, ge=2, le=1000)
    """Number of classes. The paper: 10, as CIFAR-10 has."""
    image_size: int = Field(default=16, ge=4, le=64)
    """Side of the square images in pixels. The paper: 16."""
    image_rows: int | None = Field(default=None, ge=1, le=64)
    """Number of rows of images that are not square. With 1, images are vectors of `image_size` features (Rawal et al. 2020: 10
    features). None: images are square."""
    image_channels: int = Field(default=3, ge=1, le=4)
    """Number of colour channels. The paper: 3."""
    labels: Literal["classes", "bits"] = "classes"
    """The labels of the images. "classes": each image has one class, and all classes have the same number of images (the
    paper). "bits": each image has one random bit for each class, which the class's logit predicts (Rawal et al. 2020); this is
    for perceptrons only."""
    start: Literal["gaussian", "images", "dish"] = "gaussian"
    """The images before learning. "gaussian": every value is drawn from N(0, 1) (the paper says "randomly generating").
    "images": real images are drawn from `source`, resized, and each channel is shifted and scaled to mean 0 and variance 1.
    "dish": learning starts from the dish that is saved in `source`."""
    source: str | None = Field(default=None, min_length=1)
    """The file that `start` reads: for "images" an .npz of images and labels or a folder of IDX files (as MNIST has them), for
    "dish" the .npz of a dish."""
    valid_images: int = Field(default=0, ge=0, le=100_000)
    """Number of validation images, the same for each class. If there are any, the metric is read on them (Rawal et al. 2020,
    arXiv:2005.13092). 0: there is no validation set, and the metric is read on the training images (the paper)."""
    valid_start: Literal["drawn", "copy"] = "drawn"
    """The validation images before learning. "drawn": they are drawn as `start` says, independently of the training images.
    "copy": they are copies of the first training images of each class; if labels are bits, of the first training images
    (Rawal et al. 2020: of all of them)."""
    basis: int | None = Field(default=None, ge=1, le=64)
    """Learn few numbers in place of pixels: every channel is a sum of the `basis` x `basis` cosines of lowest frequency
    (DCT-II), whose coefficients are learned. None: every pixel is learned (the paper)."""

    generator: int | None = Field(default=None, ge=1, le=16)
    """Learn few numbers in place of pixels: images are generated from those before learning. Their frequencies (DCT-II) are
    divided by radius into this number of bands. Each band has a learned amplitude and a learned share of a prototype of the
    class, which is proportional to the sum of the class's images before learning; and a learned matrix mixes the channels.
    These 2 x `generator` + `image_channels`^2 numbers begin with values that change nothing. None: no generator."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, n in (("images", self.images), ("valid_images", self.valid_images)):
            if n % self.classes and self.labels == "classes":
                raise ValueError(
                    f"{name} is {n}, expected a multiple of classes ({self.classes}): classes are balanced"
                )
        if (self.source is None) != (self.start == "gaussian"):
            expected = "None" if self.start == "gaussian" else "a path"
            raise ValueError(f'source is {self.source!r}, expected {expected} with start "{self.start}"')
        if self.valid_start == "copy" and self.valid_images > self.images:
            raise ValueError(
                f'valid_images is {self.valid_images}, expected at most images ({self.images}) with valid_start "copy"'
            )
        if self.start == "images" and (self.image_rows is not None or self.labels == "bits"):
            raise ValueError(
                'start "images" makes square images of one class each, expected neither image_rows nor "bits"'
            )
        if self.generator is not None and (self.image_rows is not None or self.labels == "bits"):
            raise ValueError(
                f'generator is {self.generator}, expected None with image_rows or labels "bits": it makes square images of classes'
            )
        if self.basis is not None and self.image_rows is not None:
            raise ValueError(f"basis is {self.basis}, expected None with image_rows: cosines are of square images")
        if self.basis is not None and self.generator is not None:
            raise ValueError(f"basis is {self.basis} and generator {self.generator}, expected one of them or neither")
        if self.basis is not None and self.basis > self.image_size:
            raise ValueError(f"basis is {self.basis}, expected at most image_size ({self.image_size})")
        return self


class AdamSettings(_Settings):
    """Adam as in PyTorch (Kingma and Ba 2015, arXiv:1412.6980)."""

    name: Literal["adam"] = "adam"
    """Name of the optimizer."""
    lr: Rate
    """Learning rate. The paper: 5e-5 for motifs, 1e-2 for the dish."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running mean and of the running mean square. The default is PyTorch's; the paper names none."""
    eps: float = Field(default=1e-8, gt=0, le=1)
    """The number that is added to the root of the mean square. The default is PyTorch's."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Weight decay: the weights times this factor are added to the gradient (L2). The paper: 1e-6 for motifs, none for the
    dish."""


class SGDSettings(_Settings):
    """Stochastic gradient descent as in PyTorch."""

    name: Literal["sgd"]
    lr: Rate
    """Learning rate."""
    momentum: Decay = 0.0
    """Decay of the running sum of gradients."""
    nesterov: bool = False
    """Whether to use Nesterov's momentum, which needs a momentum above 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Weight decay: the weights times this factor are added to the gradient (L2)."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is set and momentum is 0, expected a momentum above 0")
        return self


class RMSPropSettings(_Settings):
    """RMSProp as in TensorFlow 1, the benchmark's own optimizer (Ying et al. 2019, arXiv:1902.09635)."""

    name: Literal["rmsprop"]
    lr: Rate
    """Learning rate. The benchmark: 0.2."""
    alpha: Decay = 0.9
    """Decay of the running mean square. The benchmark: 0.9."""
    eps: float = Field(default=1.0, gt=0, le=10)
    """The number that is added under the root. The benchmark: 1.0."""
    momentum: Decay = 0.9
    """Decay of the running sum of steps. The benchmark: 0.9."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Weight decay: the weights times this factor are added to the gradient (L2). The benchmark: 1e-4."""


class CMAESSettings(_Settings):
    """CMA-ES, which needs no gradient (Hansen 2016, arXiv:1604.00772). An outer epoch measures a generation of dishes on the
    same cells. It suits few numbers: initial scales, rates, step weights, a generator."""

    name: Literal["cmaes"]
    sigma: float = Field(gt=0, le=10)
    """Standard deviation of the first generation in each free number; for rates, of their logarithms."""
    population: int | None = Field(default=None, ge=4, le=10_000)
    """Number of dishes in a generation. None: 4 + 3 log n for n free numbers, rounded down (Hansen 2016, equation 48)."""


class ScaleSettings(_Settings):
    """Factors that multiply the drawn initial weights, one for each kind of layer."""

    stem: Scale = 1.0
    """Factor of the initial weights of the stem's convolution."""
    conv3x3: Scale = 1.0
    """Factor of the initial weights of the cells' 3x3 convolutions."""
    conv1x1: Scale = 1.0
    """Factor of the initial weights of the cells' 1x1 convolutions, among them the projections of the cells' inputs."""
    dense: Scale = 1.0
    """Factor of the initial weights of the dense layer, on which the spread of the logits before training depends."""


class InnerSettings(_Settings):
    """The inner loop: how a motif is trained on the dish (the paper, section 4)."""

    epochs: int = Field(default=100, ge=1, le=100_000)
    """Number of passes over the training images. The paper: 100, or 16 in section 5.3."""
    batch_size: int = Field(default=20, ge=1)
    """Number of images in a batch. The paper: 20."""
    optimizer: Annotated[AdamSettings | SGDSettings | RMSPropSettings, Field(discriminator="name")] = AdamSettings(
        lr=5e-5, weight_decay=1e-6
    )
    """The optimizer of the weights. The paper: Adam, learning rate 5e-5, weight decay 1e-6."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate over the steps: "constant", or "cosine" from the optimizer's learning rate to 0. The paper: constant."""
    init: Literal["motif", "shared"] = "motif"
    """Who shares initial weights. "motif": every cell has its own (the paper probably does this). "shared": all motifs take
    slices of one set, so that cells start as alike as they can (Rawal et al. 2020, arXiv:2005.13092)."""
    init_distribution: Literal["pytorch", "nasbench101", "normal"] = "pytorch"
    """The distribution of the initial weights: PyTorch's default (the paper), the benchmark's (Ying et al. 2019), or N(0, 1) for
    weights and biases alike (Rawal et al. 2020)."""
    initial_scales: ScaleSettings = ScaleSettings()
    replicates: int = Field(default=1, ge=1, le=1000)
    """Number of motifs of each cell, which differ in their initial weights. The metric of a cell is the mean over them. The
    paper: 1."""
    split_images: bool = False
    """Whether replicates differ in their images as well: replicate r of R is then trained on images r, r + R, r + 2R and so on.
    If false, all replicates are trained on all images."""
    redraw: bool = True
    """Whether initial weights and sample orders are drawn anew in every outer epoch (the paper probably does this). If false,
    all outer epochs have the same ones (Rawal et al. 2020)."""


def _known_learnable(name: str) -> str:
    if name not in LEARNABLES:
        raise ValueError(f"learn holds {name!r}, expected one of {', '.join(LEARNABLES)}")
    return name


Learned = Annotated[str, AfterValidator(_known_learnable)]


def _checked_reference(row: tuple[float, ...]) -> tuple[float, ...]:
    """Return the quantiles of a loss; refuse those that do not increase from above 0."""
    if row[0] <= 0 or any(low >= high for low, high in pairwise(row)):
        raise ValueError("a row of reference_losses does not increase from above 0, expected quantiles of a loss")
    return row


_ReferenceLosses = Annotated[
    tuple[float, ...],
    Field(strict=False, min_length=len(REFERENCE_SCORES), max_length=len(REFERENCE_SCORES)),
    AfterValidator(_checked_reference),
]


class OuterSettings(_Settings):
    """The outer loop: how the dish is changed (the paper, sections 3.5 and 4)."""

    epochs: int = Field(default=170, ge=1, le=1_000_000)
    """Number of outer epochs. The paper: 170."""
    cells: int = Field(default=6, ge=3, le=100_000)
    """Number of cells that are compared in one outer epoch. They are drawn from the training cells without replacement until
    all are used, then again in another order. The paper: 6, each used once (1,020 in 170 outer epochs)."""
    pool: int | None = Field(default=None, ge=3)
    """Size of the pool, which are the cells whose accuracies are used at all. They are drawn at random from those given. None:
    all of them (the paper)."""
    validation_cells: int = Field(default=0, ge=0)
    """Number of validation cells: cells of the pool that no outer epoch compares, on which dishes are checked. Kendall's tau of
    the dish's scores on them is recorded. 0: none (the paper)."""
    keep: Literal["last", "best"] = "last"
    """Which dish is kept in the end: the "last" one (the paper), or of all dishes that were checked the "best" one on the
    validation cells. Tau on few cells is noisy, so the best of many checks is mostly luck, unless dishes get worse again."""
    check_every: int = Field(default=10, ge=1)
    """Number of outer epochs between two checks on the validation cells, of which the first is before learning; and between two
    ridge regressions."""
    replicates: int | None = Field(default=None, ge=1)
    """Number of replicates of each cell that an outer epoch measures; outer epochs take the replicates in turn. Checks, ridge
    regressions and scores use all replicates. None: all."""
    patience: int | None = Field(default=None, ge=1)
    """Early stopping: stop when tau on the validation cells has not risen for this number of outer epochs (Prechelt
    1998, Early stopping - but when?). None: never (the paper)."""
    truth: Literal["accuracy", "loss"] = "accuracy"
    """Which measurement of a cell is its truth: the "accuracy" (the paper), or minus the "loss" (Rawal et al. 2020,
    arXiv:2005.13092). NAS-Bench-101 has no losses."""
    target: Literal["plain", "rank", "winsorised"] = "plain"
    """What metrics are compared with. "plain": the truth as it is (the paper). "rank": its rank among the training cells, scaled
    to 0 to 1; ties share a rank (Conover and Iman 1981, Rank transformations). "winsorised": the truth with its ends cut."""
    winsorise: float = Field(default=0.05, gt=0, lt=0.5)
    """With target "winsorised": the share of the training cells at either end whose truth is moved to the quantile there (Tukey
    1962)."""
    metric: Literal["probability", "loss", "training_loss"] = "probability"
    """What is read off a motif. "probability": the mean probability of the true class (the paper, equation 4). "loss": the mean
    cross-entropy (Rawal et al. 2020). Both are read after training, on the validation set, or on the training set if there is
    no validation set. "training_loss": the mean of the training losses of all steps, which measures the speed of learning
    (training speed estimation, TSE: Ru et al. 2021, arXiv:2006.04492). Losses enter the outer loss with their sign reversed,
    so that more is better."""
    step_weights: Literal["optimizer", "ridge"] = "optimizer"
    """How step weights are learned, if they are. "optimizer": by the optimizer, as everything else. "ridge": by ridge regression
    of the target on the training losses of the steps of all training cells, before every `check_every`-th outer epoch and at the
    end. The penalty is chosen by leaving out each cell (Golub, Heath and Wahba 1979, Generalized cross-validation). The metric is
    linear in step weights, so the regression needs no outer epochs."""
    metric_epochs: int | None = Field(default=None, ge=1)
    """With the metric "training_loss": average over this number of last inner epochs (TSE-E of Ru et al. 2021, who find that the
    first epochs predict least). If step weights are learned, they begin with this average. None: all inner epochs."""
    loss: Literal[
        "pearson_abs",
        "pearson",
        "mse_whitened",
        "mse",
        "soft_spearman",
        "soft_kendall",
        "pairwise_logistic",
        "pairwise_weighted",
        "listmle",
    ] = "pearson_abs"
    """The outer loss, which compares metrics with the target (`spd_fast.outer.losses`). The paper: "pearson_abs", equation 8.
    Rawal et al. 2020: "mse_whitened". The paper's future work: "mse"."""
    ranking: Literal["accuracy", "metric"] = "accuracy"
    """The score by which cells are ranked: the motifs' "accuracy" on the dish after training, or the "metric". Accuracies tie
    when motifs are perfect (the paper, section 5.2)."""
    reference_losses: Annotated[tuple[_ReferenceLosses, ...], Field(strict=False, min_length=1)] | None = None
    """With metric "training_loss" and ranking "metric": how an epoch's mean training loss is distributed over random cells of the
    space, one row for each epoch that counts. A row has 13 losses: the quantiles at the normal scores -3, -2.5, ..., 3. Each
    epoch's loss is turned into the normal score of its rank among those cells before epochs are averaged, so that a single epoch
    with large losses does not decide. No label is used. `spd_fast.scoring.reference_losses` measures them for other settings of the
    inner loop. None: the losses themselves are averaged."""
    learn: Annotated[tuple[Learned, ...], Field(strict=False, min_length=1)] = ("images",)
    """Names of the learnables that the outer loop changes. If only the validation set or step weights are learned, the
    hypergradient equals the direct gradient, and motifs that are not redrawn are trained once."""
    gradient: Literal["direct", "unrolled"] = "direct"
    """Which gradient of the metric the optimizer follows. "direct": the direct gradient, which holds the trained weights fixed
    (the paper, section 3.5). "unrolled": the hypergradient, which goes through every step of training (Rawal et al. 2020)."""
    window: int | None = Field(default=None, ge=1)
    """Differentiate through this number of last inner steps only (truncated back-propagation; Feng et al. 2024,
    RaT-BPTT, arXiv:2310.04408: 60 of 200). None: through all steps."""
    optimizer: Annotated[AdamSettings | CMAESSettings, Field(discriminator="name")] = AdamSettings(lr=1e-2)
    """The optimizer of what is learned. The paper: Adam, learning rate 1e-2, no weight decay. Such et al. 2020 (GTN,
    arXiv:1912.07768): Adam with betas (0.9, 0.9). CMA-ES uses no gradient, so that `gradient` has no effect."""
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    """The outer learning rate. "constant": always the optimizer's (the paper). "cosine": from the optimizer's to a tenth of it in
    the last outer epoch (GTN). "steps": 0.4 times as much after a quarter of the outer epochs, and again after five eighths; the
    optimizer then begins anew (Rawal et al. 2020: after 20 and 50 of 80)."""
    clip: float | None = Field(default=None, gt=0, le=1e6)
    """Clip gradients whose norm exceeds this multiple of its running mean (RaT-BPTT: 2). None: never (the paper)."""
    saturation: float | None = Field(default=None, gt=0, le=1)
    """Take no outer step if at least this share of the motifs classify every image correctly, because such motifs differ by
    rounding alone. None: always take it (the paper, where all six motifs B were perfect in 44 % of the outer epochs)."""
    trust_every: int = Field(default=0, ge=0)
    """Number of outer epochs between two measurements of the trust ratio, which is the actual over the predicted change of the
    outer loss by an outer step (Conn, Gould and Toint 2000, Trust-region methods). To measure it, the same motifs are measured
    again after the step. 0: it is never measured."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.pool is not None and self.pool - self.validation_cells < self.cells:
            raise ValueError(
                f"pool is {self.pool} with validation_cells {self.validation_cells}, expected at least cells ({self.cells}) beside the validation cells"
            )
        if self.validation_cells in (1, 2):
            raise ValueError(
                f"validation_cells is {self.validation_cells}, expected 0 or at least 3: tau of fewer cells says nothing"
            )
        if (self.patience is not None or self.keep == "best") and not self.validation_cells:
            what = 'keep is "best"' if self.keep == "best" else f"patience is {self.patience}"
            raise ValueError(
                f"{what} and validation_cells is 0, expected validation cells to check dishes on: set validation_cells"
            )
        if self.derivative is None:
            self._require_no_gradient()
        if self.window is not None and self.gradient == "direct":
            raise ValueError(f'window is {self.window}, expected None with gradient "direct"')
        if self.metric_epochs is not None and self.metric != "training_loss":
            raise ValueError(f'metric_epochs is {self.metric_epochs}, expected None with metric "{self.metric}"')
        if self.reference_losses is not None:
            if (self.metric, self.ranking) != ("training_loss", "metric"):
                raise ValueError(
                    f'reference_losses are given with metric "{self.metric}" and ranking "{self.ranking}", expected '
                    '"training_loss" and "metric": they rank training losses'
                )
            if "step_weights" in self.learn:
                raise ValueError(
                    'reference_losses are given and learn has "step_weights", expected one of the two: ranks of epochs have no '
                    "weights of steps"
                )
        if self.step_weights == "ridge" and "step_weights" not in self.learn:
            raise ValueError(
                f'step_weights is "ridge" and learn is {list(self.learn)}, expected "step_weights" among them'
            )
        if len(set(self.learn)) < len(self.learn):
            raise ValueError(f"learn is {list(self.learn)}, expected each name once")
        self.require_learnable()
        return self

    def require_learnable(self, *, validation: bool | None = None, perceptrons: bool | None = None) -> None:
        """Raise if something is learned on which the metric does not depend, or which its gradient does not reach.

        Parameters
        ----------
        validation, perceptrons
            As in `spd_fast.learnables.learnable.Conditions`.

        Raises
        ------
        ValueError
            If a learnable cannot be learned under these conditions; the message says why.
        """
        conditions = Conditions(self.metric, self.derivative, self.window, validation, perceptrons)
        for name in self.learn:
            objection = LEARNABLES[name].objection(conditions)
            if objection is not None:
                raise ValueError(objection)

    @property
    def derivative(self) -> Literal["direct", "unrolled"] | None:
        """The gradient that the optimizer follows; None if it uses none."""
        return self.gradient if isinstance(self.optimizer, AdamSettings) else None

    def _require_no_gradient(self) -> None:
        """Raise if a setting of the gradient is changed, because the optimizer uses no gradient."""
        for name, without in (("window", None), ("clip", None), ("trust_every", 0), ("schedule", "constant")):
            value = getattr(self, name)
            if value != without:
                raise ValueError(
                    f'{name} is {value!r}, expected {without!r} with optimizer "cmaes", which has no gradient'
                )


class Recipe(_Settings):
    """All settings of a run.

    Parameters
    ----------
    **settings
        The settings below. A group is an object of its class, or a mapping of its settings.

    Raises
    ------
    ValueError
        If a setting is unknown, has the wrong type or is out of range. The message names all wrong settings.

    Examples
    --------
    >>> from spd_fast import recipes
    >>> recipe = recipes.get("cassimon_c").replace({"inner.epochs": 16})
    >>> recipe.inner.epochs, recipe.motif.name, recipe.outer.epochs
    (16, 'C', 170)
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    """The name of the recipe, of letters, digits and ``_ . + -``. Run folders are named after it."""
    summary: str = Field(default="", max_length=500)
    """A sentence or two on what the recipe does."""
    motif: Annotated[
        Annotated[MotifSettings, Tag("cell")] | Annotated[PerceptronSettings, Tag("perceptron")],
        Discriminator(_kind_of_motif),
        BeforeValidator(_named_shape),
    ]
    dish: DishSettings = DishSettings()
    inner: InnerSettings = InnerSettings()
    outer: OuterSettings = OuterSettings()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed of the dish, of the choice of cells, of the initial weights and of the sample orders."""
    dtype: Literal["float32", "float64"] = "float32"
    """The element type of images, weights and arithmetic. float64 is for checks and is several times slower."""

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(_describe(error, settings.get("name"))) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.inner.split_images and self.dish.images // self.dish.classes % self.inner.replicates:
            raise ValueError(
                f"dish.images is {self.dish.images}, expected a multiple of dish.classes ({self.dish.classes}) times "
                f"inner.replicates ({self.inner.replicates}) with inner.split_images"
            )
        if self.inner.batch_size > self.images_of_a_motif:
            share = " over inner.replicates" if self.inner.split_images else ""
            raise ValueError(
                f"inner.batch_size is {self.inner.batch_size}, expected at most dish.images{share} ({self.images_of_a_motif})"
            )
        if self.outer.metric_epochs is not None and self.outer.metric_epochs > self.inner.epochs:
            raise ValueError(
                f"outer.metric_epochs is {self.outer.metric_epochs}, expected at most inner.epochs ({self.inner.epochs})"
            )
        rows, counted = self.outer.reference_losses, self.outer.metric_epochs or self.inner.epochs
        if rows is not None and len(rows) != counted:
            raise ValueError(
                f"outer.reference_losses has {len(rows)} rows, expected {counted}: one for each inner epoch that counts; set it to "
                "null, or measure it anew (spd_fast.scoring.reference_losses)"
            )
        if self.outer.replicates is not None and self.outer.replicates > self.inner.replicates:
            raise ValueError(
                f"outer.replicates is {self.outer.replicates}, expected at most inner.replicates ({self.inner.replicates})"
            )
        perceptrons = isinstance(self.motif, PerceptronSettings)
        self.outer.require_learnable(validation=self.dish.valid_images > 0, perceptrons=perceptrons)
        if isinstance(self.motif, MotifSettings):
            self._require_cell_images(self.motif)
        elif self.inner.initial_scales != ScaleSettings():
            raise ValueError(
                "initial_scales are set or learned, expected motifs of cells: a perceptron has other layers"
            )
        return self

    def _require_cell_images(self, motif: MotifSettings) -> None:
        """Raise if no motif of a cell can be trained on the dish."""
        if self.dish.labels == "bits":
            raise ValueError('dish.labels is "bits", expected "classes": motifs of cells tell classes apart')
        if self.dish.image_rows is not None and self.dish.image_rows < 4:
            raise ValueError(f"dish.image_rows is {self.dish.image_rows}, expected at least 4 for motifs of cells")
        shortest = min(self.dish.image_size, self.dish.image_rows or self.dish.image_size)
        if shortest >> (motif.stacks - 1) < 1:
            raise ValueError(
                f"dish.image_size is {shortest}, expected at least {1 << (motif.stacks - 1)}: "
                f"pooling between {motif.stacks} stacks halves it {motif.stacks - 1} times"
            )

    @property
    def shape(self) -> motifs.MotifShape | PerceptronShape:
        """The motif shape, which has the dish's classes and image channels."""
        if isinstance(self.motif, PerceptronSettings):
            return PerceptronShape(
                hidden=self.motif.hidden,
                layers=self.motif.layers,
                classes=self.dish.classes,
                image_channels=self.dish.image_channels,
                loss="binary" if self.dish.labels == "bits" else "softmax",
            )
        return motifs.MotifShape(
            stem_channels=self.motif.stem_channels,
            stacks=self.motif.stacks,
            cells_per_stack=self.motif.cells_per_stack,
            classes=self.dish.classes,
            image_channels=self.dish.image_channels,
        )

    @property
    def cell_type(self) -> type:
        """The type of the candidates that the motifs are made of: `Cell`, or `Perceptron`."""
        return self.shape.cell_types[0]

    @property
    def form(self) -> DishForm:
        """What the learnables need to know of this recipe."""
        schedule: Literal["cosine"] | None = None if self.inner.schedule == "constant" else "cosine"
        return DishForm(
            classes=self.dish.classes,
            image_size=self.dish.image_size,
            image_channels=self.dish.image_channels,
            basis=self.dish.basis,
            generator=self.dish.generator,
            steps=self.steps,
            counted_steps=self.counted_steps,
            rates=learning_rates(schedule, self.inner.optimizer.lr, self.steps),
            initial_scales=np.array([getattr(self.inner.initial_scales, kind) for kind in motifs.LAYER_KINDS]),
            dtype=self.dtype,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an inner epoch. The last step has fewer images if the batch size does not divide their number."""
        return -(-self.images_of_a_motif // self.inner.batch_size)

    @property
    def images_of_a_motif(self) -> int:
        """Number of images that a motif is trained on."""
        return self.dish.images // (self.inner.replicates if self.inner.split_images else 1)

    @property
    def optimized(self) -> tuple[str, ...]:
        """Names of the learnables that the outer optimizer changes: all that are learned, except step weights that ridge
        regression finds."""
        return tuple(
            name for name in self.outer.learn if name != "step_weights" or self.outer.step_weights == "optimizer"
        )

    @property
    def steps(self) -> int:
        """Number of steps of the inner loop."""
        return self.inner.epochs * self.steps_per_epoch

    @property
    def counted_steps(self) -> int:
        """Number of last steps over which the metric "training_loss" averages if no step weights are learned."""
        return (self.outer.metric_epochs or self.inner.epochs) * self.steps_per_epoch

    def replace(self, settings: Mapping[str, Any]) -> "Recipe":
        """Return a recipe with some settings changed and everything checked again.

        Parameters
        ----------
        settings : mapping of dotted name to value
            ``{"inner.epochs": 16, "motif": "B"}``.

        Raises
        ------
        ValueError
            If a name is unknown or a value is wrong.
        """
        fields = self.model_dump()
        expected = "a mapping of dotted names to values, such as {'inner.epochs': 16}"
        for key, value in checked_instance("settings", settings, Mapping, expected).items():
            checked_instance("the name of a setting", key, str, "a dotted name such as 'inner.epochs'")
            _set_dotted(fields, key, value)
        return Recipe(**fields)

    def explain(self) -> list[tuple[str, Any, str]]:
        """Return (dotted name, value, meaning) of every setting, in order."""
        learnables = " ".join(f'"{name}": {each.meaning}.' for name, each in LEARNABLES.items())
        return [
            (name, value, f"{meaning} {learnables}" if name == "outer.learn" else meaning)
            for name, value, meaning in _explain(self, "")
        ]

    def to_json(self) -> str:
        """Return the recipe as indented JSON text with its schema."""
        return json.dumps({"schema": SCHEMA, **self.model_dump(mode="json")}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read a recipe from the text that `to_json` returns.

        Raises
        ------
        ValueError
            If the text is not JSON or has another schema, or if a setting is missing, unknown or wrong.
        """
        try:
            fields = json.loads(checked_instance("text", text, str, "the text that to_json returned"))
        except ValueError as error:
            raise ValueError(f"recipe is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"recipe is a JSON {type(fields).__name__}, expected an object")
        schema = fields.pop("schema", None)
        if schema != SCHEMA:
            raise ValueError(
                f"recipe has schema {schema!r}, expected {SCHEMA!r}: another version of spd_fast wrote it; print a recipe of this "
                "version with spd-fast recipes NAME --json and enter its settings there"
            )
        return cls(**fields)


def checked_recipe(recipe: Any) -> Recipe:
    """Return a recipe.

    Raises
    ------
    TypeError
        If it is something else, such as the name of one.
    """
    name = recipe if isinstance(recipe, str) else "demo"
    return checked_instance(
        "recipe", recipe, Recipe, f"a spd_fast.Recipe, such as spd_fast.recipes.get({name!r}) returns"
    )


_TAGS: Final = ("adam", "sgd", "rmsprop", "cmaes", "cell", "perceptron")


def _describe(error: ValidationError, name: Any) -> str:
    """Return an error message that says what is wrong with every wrong setting."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if part not in _TAGS)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{where} is not a setting{_suggestion(where)}")
        elif item["type"] == "missing":
            lines.append(f"{where} is missing")
        elif item["type"] == "value_error":
            lines.append(f"{where}: {message}" if where else message)
        else:
            meant = did_you_mean(str(item["input"]), re.findall("'([^']+)'", str(item.get("ctx", {}).get("expected"))))
            lines.append(f"{where} is {item['input']!r}: {message[0].lower()}{message[1:]}{meant}")
    return f"recipe {name!r}: " + "; ".join(lines)


def _suggestion(name: str) -> str:
    """Return the setting that was probably meant, as part of an error message; an empty text if no name is similar."""
    name = _RENAMED.get(name, name)
    return did_you_mean(name, _setting_names(Recipe, ""))


def _setting_names(group: type[_Settings], prefix: str) -> list[str]:
    """Return the dotted names of all settings of a group."""
    names: list[str] = []
    for name, field in group.model_fields.items():
        kind = field.annotation
        is_group = isinstance(kind, type) and issubclass(kind, _Settings)
        names += _setting_names(kind, f"{prefix}{name}.") if is_group else [prefix + name]  # type: ignore[arg-type]
    return names


def _set_dotted(fields: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    inside = fields
    for group in [*groups, None]:
        known = ", ".join(inside)
        if (group or last) not in inside or (group and not isinstance(inside[group], dict)):
            raise ValueError(
                f"{key} is not a setting{_suggestion(key)}: expected one of {known} in place of {group or last}"
            )
        inside = inside[group] if group else inside
    if last == "optimizer" and isinstance(value, str):
        raise ValueError(f'{key} is {value!r}, expected an object such as {{"name": "adam", "lr": 0.001}}')
    inside[last] = value


def _explain(settings: _Settings, prefix: str) -> list[tuple[str, Any, str]]:
    rows: list[tuple[str, Any, str]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, _Settings):
            rows += _explain(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value, " ".join((field.description or "").split())))
    return rows
