"""Recipes: every setting of a run, named, validated and serialisable.

A recipe has four groups, `motif`, `dish`, `inner` (train weights) and `outer` (change the dish). Settings are addressed
by dotted names, ``inner.epochs``. Unknown names, wrong types and values out of range are refused when a recipe is made,
so every recipe can be run.

References
----------
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method: sections 3 and 4
("the paper").
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
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
from spd_fast.learnables.learnable import Conditions, DishForm
from spd_fast.learnables.rates import learning_rates
from spd_fast.learnables.table import LEARNABLES
from spd_fast.spaces.perceptron import PerceptronShape

__all__ = [
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
]

SCHEMA: Final = "spd_fast.recipe/2"
"""Version of the JSON form; it changes when an older reader could misread a newer recipe."""

_RENAMED: Final = {
    "inner.initializer": "inner.init_distribution",
    "outer.kept_out": "outer.validation_cells",
}
"""Settings of schema 1 by their present names: an error suggests these, and nothing reads the old ones."""
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


Rate = Annotated[float, Field(gt=0, le=10)]
Scale = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]


class MotifSettings(_Settings):
    """The network built around a cell (the paper, figure 1). A name stands for its numbers: "A", "B" or "C"."""

    stem_channels: int = Field(ge=1, le=1024)
    """Channels after the stem and in the first stack; doubled from stack to stack. A 32, B and C 16."""
    stacks: int = Field(default=1, ge=1, le=8)
    """Stacks of cells, with a 2x2 max-pool between them. A and C 1, B 3."""
    cells_per_stack: int = Field(default=1, ge=1, le=16)
    """Cells in a stack. A 3, B and C 1."""

    @property
    def name(self) -> str:
        """The letter of the paper's motif with these numbers, or the numbers themselves."""
        numbers = (self.stem_channels, self.stacks, self.cells_per_stack)
        for name, shape in _SHAPES.items():
            if numbers == (shape.stem_channels, shape.stacks, shape.cells_per_stack):
                return name
        return f"{self.stem_channels} channels, {self.stacks}x{self.cells_per_stack}"


class PerceptronSettings(_Settings):
    """A perceptron in place of a network around a cell: its sigmoids have the candidate's slope (Rawal et al. 2020)."""

    hidden: int = Field(ge=1, le=65_536)
    """Units of each hidden layer. Rawal et al. 2020: 1."""
    layers: int = Field(default=2, ge=1, le=64)
    """Hidden layers. Rawal et al. 2020: 2."""

    @property
    def name(self) -> str:
        """The number of units of every hidden layer."""
        return "-".join([str(self.hidden)] * self.layers)


def _kind_of_motif(value: Any) -> str:
    is_perceptron = isinstance(value, PerceptronSettings) or (isinstance(value, Mapping) and "hidden" in value)
    return "perceptron" if is_perceptron else "cell"


class DishSettings(_Settings):
    """The synthetic data before learning (the paper, section 3.3)."""

    images: int = Field(default=200, ge=2, le=100_000)
    """Images, the same number of each class. The paper: 200."""
    classes: int = Field(default=10, ge=2, le=1000)
    """Classes. The paper: 10, as CIFAR-10."""
    image_size: int = Field(default=16, ge=4, le=64)
    """Side of the square images in pixels. The paper: 16."""
    image_rows: int | None = Field(default=None, ge=1, le=64)
    """Rows of images that are not square: 1 makes them vectors of `image_size` features (Rawal et al. 2020: of 10). None: square."""
    image_channels: int = Field(default=3, ge=1, le=4)
    """Colour channels. The paper: 3."""
    labels: Literal["classes", "bits"] = "classes"
    """Labels of the images. "classes": one class for each image, the same number of images of each class (the paper).
    "bits": one random bit for each class, which its logit predicts (Rawal et al. 2020); for perceptrons only."""
    start: Literal["gaussian", "images", "dish"] = "gaussian"
    """The images before learning. "gaussian": every value is drawn from N(0, 1); the paper says "randomly generating".
    "images": real images drawn from `source`, resized, each channel shifted and scaled to mean 0 and variance 1. "dish":
    the dish saved in `source`, a warm start."""
    source: str | None = Field(default=None, min_length=1)
    """File that `start` reads: for "images" an .npz of images and labels or a folder of IDX files (MNIST and kin), for
    "dish" a dish .npz."""
    valid_images: int = Field(default=0, ge=0, le=100_000)
    """Images of a separate validation set, the same number of each class; the metric is then read on it. 0: none, the
    metric is read on the training images (the paper). Rawal et al. 2020 (arXiv:2005.13092) have one."""
    valid_start: Literal["drawn", "copy"] = "drawn"
    """The validation images before learning. "drawn": drawn as `start` says, independently of the training images.
    "copy": a copy of the first training images of each class (of all images, if labels are bits). Rawal et al. 2020: a
    copy of all."""
    basis: int | None = Field(default=None, ge=1, le=64)
    """Few parameters: every channel is a sum of the `basis` x `basis` cosines of lowest frequency (DCT-II), whose
    coefficients are learned. None: every pixel is learned (the paper)."""

    generator: int | None = Field(default=None, ge=1, le=16)
    """Few parameters: images are generated from those of the start. Their frequencies (DCT-II) are divided by radius
    into this number of bands. Each band has a learned amplitude and a learned share of a prototype of the class (the
    sum of its images at the start), and a learned matrix mixes the channels. These 2 x `generator` + `image_channels`^2
    numbers begin with values that change nothing. None: no generator."""

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
    """Adam with PyTorch's semantics (Kingma and Ba 2015, arXiv:1412.6980)."""

    name: Literal["adam"] = "adam"
    """Name of the optimiser."""
    lr: Rate
    """Learning rate. The paper: 5e-5 for motifs, 1e-2 for the dish."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running mean and of the running mean square. PyTorch's default; the paper names none."""
    eps: float = Field(default=1e-8, gt=0, le=1)
    """Added to the root of the mean square. PyTorch's default."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Factor of the weights added to the gradient (L2). The paper: 1e-6 for motifs, none for the dish."""


class SGDSettings(_Settings):
    """Stochastic gradient descent with PyTorch's semantics."""

    name: Literal["sgd"]
    lr: Rate
    """Learning rate."""
    momentum: Decay = 0.0
    """Decay of the running sum of gradients."""
    nesterov: bool = False
    """Use Nesterov's momentum; needs a momentum above 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Factor of the weights added to the gradient (L2)."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is set and momentum is 0, expected a momentum above 0")
        return self


class RMSPropSettings(_Settings):
    """RMSProp with TensorFlow 1's semantics, the benchmark's own optimiser (Ying et al. 2019, arXiv:1902.09635)."""

    name: Literal["rmsprop"]
    lr: Rate
    """Learning rate. The benchmark: 0.2."""
    alpha: Decay = 0.9
    """Decay of the running mean square. The benchmark: 0.9."""
    eps: float = Field(default=1.0, gt=0, le=10)
    """Added under the root. The benchmark: 1.0."""
    momentum: Decay = 0.9
    """Decay of the running sum of steps. The benchmark: 0.9."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Factor of the weights added to the gradient (L2). The benchmark: 1e-4."""


class CMAESSettings(_Settings):
    """CMA-ES, which needs no gradient (Hansen 2016, arXiv:1604.00772): an outer epoch measures a generation of dishes on the
    same cells. It suits few numbers: scales, rates, step weights, a generator."""

    name: Literal["cmaes"]
    sigma: float = Field(gt=0, le=10)
    """Standard deviation of the first generation, in each free number (for rates: in their logarithms)."""
    population: int | None = Field(default=None, ge=4, le=10_000)
    """Dishes of a generation. None: 4 + 3 log n of n numbers, rounded down (Hansen 2016, equation 48)."""


class ScaleSettings(_Settings):
    """Factors that multiply the initial weights, by kind of layer. 1: as drawn."""

    stem: Scale = 1.0
    """Of the stem's convolution."""
    conv3x3: Scale = 1.0
    """Of the cells' 3x3 convolutions."""
    conv1x1: Scale = 1.0
    """Of the cells' 1x1 convolutions, projections of their inputs among them."""
    dense: Scale = 1.0
    """Of the dense layer: sets the spread of the logits before training."""


class InnerSettings(_Settings):
    """The inner loop: how a motif is trained on the dish (the paper, section 4)."""

    epochs: int = Field(default=100, ge=1, le=100_000)
    """Passes over the dish. The paper: 100, or 16 in section 5.3."""
    batch_size: int = Field(default=20, ge=1)
    """Images in a step. The paper: 20."""
    optimizer: Annotated[AdamSettings | SGDSettings | RMSPropSettings, Field(discriminator="name")] = AdamSettings(
        lr=5e-5, weight_decay=1e-6
    )
    """Changes the weights. The paper: Adam, learning rate 5e-5, weight decay 1e-6."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the steps: "constant", or "cosine" from the learning rate to 0. The paper: constant."""
    init: Literal["motif", "shared"] = "motif"
    """Initial weights: "motif" draws them for every cell anew (the paper probably does); "shared" takes slices of one
    set, so that all cells start as alike as they can (Rawal et al. 2020, arXiv:2005.13092)."""
    init_distribution: Literal["pytorch", "nasbench101", "normal"] = "pytorch"
    """Distribution of the initial weights: PyTorch's default (the paper), the benchmark's (Ying et al. 2019), or N(0, 1) for
    weights and biases alike (Rawal et al. 2020)."""
    initial_scales: ScaleSettings = ScaleSettings()
    replicates: int = Field(default=1, ge=1, le=1000)
    """Number of motifs of each cell, which differ in their initial weights; the cell's metric is their mean. The paper:
    1."""
    split_images: bool = False
    """If true, replicate r of R trains on images r, r + R, r + 2R and so on, so that replicates differ in their images
    as well. If false, all replicates train on all images."""
    redraw: bool = True
    """If true, draw initial weights and sample orders anew at every outer epoch (the paper probably does). If false,
    use the same ones throughout (Rawal et al. 2020)."""


def _known_learnable(name: str) -> str:
    if name not in LEARNABLES:
        raise ValueError(f"learn holds {name!r}, expected one of {', '.join(LEARNABLES)}")
    return name


Learned = Annotated[str, AfterValidator(_known_learnable)]


class OuterSettings(_Settings):
    """The outer loop: how the dish is changed (the paper, sections 3.5 and 4)."""

    epochs: int = Field(default=170, ge=1, le=1_000_000)
    """Changes of the dish. The paper: 170."""
    cells: int = Field(default=6, ge=3, le=100_000)
    """Cells compared in one outer epoch. They are drawn from the training cells without replacement until all are used,
    then again in another order. The paper: 6, each used once (1,020 in 170 epochs)."""
    pool: int | None = Field(default=None, ge=3)
    """Size of the pool: the cells whose accuracies are used at all, drawn at random from those given. None: all of them
    (the paper)."""
    validation_cells: int = Field(default=0, ge=0)
    """Validation cells: cells of the pool that no outer epoch compares. Kendall's tau of the dish's scores on them is
    recorded. 0: none (the paper)."""
    keep: Literal["last", "best"] = "last"
    """Which dish is kept in the end: the "last" (the paper), or the "best" on the validation cells of all dishes that
    were checked. On few cells tau is noisy, so the best of many checks is mostly luck, unless dishes get worse
    again."""
    check_every: int = Field(default=10, ge=1)
    """Outer epochs between two checks on the validation cells (the first check is before learning), and between two
    ridge regressions."""
    replicates: int | None = Field(default=None, ge=1)
    """Replicates of each cell that an outer epoch measures; epochs take them in turn. Checks on validation cells, ridge
    regressions and scores use all replicates. None: all."""
    patience: int | None = Field(default=None, ge=1)
    """Early stopping: stop when tau on the validation cells has not risen for this number of outer epochs (Prechelt
    1998, Early stopping - but when?). None: never (the paper)."""
    truth: Literal["accuracy", "loss"] = "accuracy"
    """Which measurement of a cell the metrics are compared with: its "accuracy" (the paper) or minus its "loss" (Rawal
    et al. 2020, arXiv:2005.13092). NAS-Bench-101 has no losses."""
    target: Literal["plain", "rank", "winsorised"] = "plain"
    """What metrics are compared with: the truth as it is ("plain", the paper); its "rank" in the pool, scaled to 0..1, ties
    sharing theirs (Conover and Iman 1981, Rank transformations); or the truth "winsorised"."""
    winsorise: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the pool at either end whose truth is moved to the quantile there, with target "winsorised" (Tukey 1962)."""
    metric: Literal["probability", "loss", "training_loss"] = "probability"
    """Read off a trained motif: mean "probability" of the true class (the paper, equation 4), or mean cross-entropy
    "loss" (Rawal et al. 2020), on the validation set, or on the training set where there is none; or "training_loss", the
    mean over all steps of the loss of the step's batch before its update, which measures the speed of learning
    (training speed estimation, TSE: Ru et al. 2021, arXiv:2006.04492). Losses enter the outer loss with their sign
    reversed, so that more is better."""
    step_weights: Literal["optimizer", "ridge"] = "optimizer"
    """How step weights are learned, where they are: by the "optimizer" with everything else, or by "ridge" regression of the target
    on the steps' losses of all cells of the pool that are compared, before every `check_every`-th epoch and at the end; its penalty is chosen by
    leaving each cell out (Golub, Heath and Wahba 1979, Generalized cross-validation). Linear in what is learned, so it needs no more epochs."""
    metric_epochs: int | None = Field(default=None, ge=1)
    """With "training_loss": average over this number of last inner epochs (TSE-E of Ru et al. 2021, who find that the
    first epochs say least). Where step weights are learned, this is where they begin. None: all epochs."""
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
    """Compares metrics with the target: `spd_fast.outer.losses`. The paper: "pearson_abs", equation 8; Rawal et al. 2020:
    "mse_whitened"; the paper's future work: "mse"."""
    ranking: Literal["accuracy", "metric"] = "accuracy"
    """What Kendall's tau is taken of, and what scores new cells: the motifs' "accuracy" on the dish after training, which
    ties when motifs are perfect as the paper describes in section 5.2, or the "metric"."""
    learn: Annotated[tuple[Learned, ...], Field(strict=False, min_length=1)] = ("images",)
    """Names of what is changed. With the validation set or step weights alone, unrolled and direct gradient are the same, and motifs
    that are not redrawn are trained once."""
    gradient: Literal["direct", "unrolled"] = "direct"
    """Of the metric: "direct" holds the trained weights fixed (the paper, section 3.5); "unrolled" goes through every step
    of training (Rawal et al. 2020)."""
    window: int | None = Field(default=None, ge=1)
    """Differentiate through this number of last inner steps only (truncated back-propagation; Feng et al. 2024,
    RaT-BPTT, arXiv:2310.04408: 60 of 200). None: all."""
    optimizer: Annotated[AdamSettings | CMAESSettings, Field(discriminator="name")] = AdamSettings(lr=1e-2)
    """Changes what is learned. The paper: Adam, learning rate 1e-2, no weight decay; GTN: betas (0.9, 0.9). Or CMA-ES,
    which uses no gradient, so that `gradient` has no effect."""
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    """Outer learning rate: "constant" (the paper); "cosine" from `optimizer.lr` to a tenth of it at the last epoch (GTN); or in
    "steps" to 0.4 of it after a quarter of the epochs and again after five eighths, where the optimiser begins anew (Rawal et al.
    2020: after 20 and 50 of 80)."""
    clip: float | None = Field(default=None, gt=0, le=1e6)
    """Clip gradients whose norm exceeds this multiple of its running mean (RaT-BPTT: 2). None: never (the paper)."""
    saturation: float | None = Field(default=None, gt=0, le=1)
    """Skip the step of an outer epoch in which at least this share of the motifs classify every image correctly,
    because such motifs differ by rounding alone. None: never skip (the paper, where all six were perfect in 44 % of
    epochs with motif B)."""
    trust_every: int = Field(default=0, ge=0)
    """At every such outer epoch, measure the same motifs again after the step. The actual over the predicted change of
    the outer loss is the trust ratio of the step (Conn, Gould and Toint 2000, Trust-region methods). It costs one more
    measurement. 0: never."""

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
        if self.step_weights == "ridge" and "step_weights" not in self.learn:
            raise ValueError(
                f'step_weights is "ridge" and learn is {list(self.learn)}, expected "step_weights" among them'
            )
        if len(set(self.learn)) < len(self.learn):
            raise ValueError(f"learn is {list(self.learn)}, expected each name once")
        self.require_learnable()
        return self

    def require_learnable(self, *, validation: bool | None = None, perceptrons: bool | None = None) -> None:
        """Refuse to learn what the metric does not see or its gradient does not reach.

        Parameters
        ----------
        validation, perceptrons
            As in `spd_fast.learnables.learnable.Conditions`.

        Raises
        ------
        ValueError
            With the objection of the first learnable that has one.
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
        """Refuse settings of the gradient if the optimizer uses none."""
        for name, without in (("window", None), ("clip", None), ("trust_every", 0), ("schedule", "constant")):
            value = getattr(self, name)
            if value != without:
                raise ValueError(
                    f'{name} is {value!r}, expected {without!r} with optimizer "cmaes", which has no gradient'
                )


class Recipe(_Settings):
    """Every setting of a run.

    Parameters
    ----------
    **settings
        The fields below; groups as objects of their class or as mappings of their fields.

    Raises
    ------
    ValueError
        If a field is unknown, has the wrong type or is out of range; one line per wrong field.

    Examples
    --------
    >>> from spd_fast import recipes
    >>> recipe = recipes.get("cassimon_c").replace({"inner.epochs": 16})
    >>> recipe.inner.epochs, recipe.motif.name, recipe.outer.epochs
    (16, 'C', 170)
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    """What the run is called: letters, digits and ``_ . + -``. Names the run folder."""
    summary: str = Field(default="", max_length=500)
    """One sentence on what the recipe is for."""
    motif: Annotated[
        Annotated[MotifSettings, Tag("cell")] | Annotated[PerceptronSettings, Tag("perceptron")],
        Discriminator(_kind_of_motif),
        BeforeValidator(_named_shape),
    ]
    dish: DishSettings = DishSettings()
    inner: InnerSettings = InnerSettings()
    outer: OuterSettings = OuterSettings()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds the dish, the choice of cells, the initial weights and the sample orders."""
    dtype: Literal["float32", "float64"] = "float32"
    """Element type of images, weights and arithmetic. float64 is for checks and is several times slower."""

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
        """Refuse a dish on which no motif of a cell can be trained."""
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
        """The motif shape, with the dish's classes and image channels."""
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
        """Steps of an inner epoch; the last has fewer images where the batch size does not divide their number."""
        return -(-self.images_of_a_motif // self.inner.batch_size)

    @property
    def images_of_a_motif(self) -> int:
        """Number of training images of a motif."""
        return self.dish.images // (self.inner.replicates if self.inner.split_images else 1)

    @property
    def optimized(self) -> tuple[str, ...]:
        """What the outer optimizer changes: everything that is learned, except step weights that ridge regression
        finds."""
        return tuple(
            name for name in self.outer.learn if name != "step_weights" or self.outer.step_weights == "optimizer"
        )

    @property
    def steps(self) -> int:
        """Steps of the inner loop."""
        return self.inner.epochs * self.steps_per_epoch

    @property
    def counted_steps(self) -> int:
        """Number of last inner steps that the metric "training_loss" averages over, if no step weights are learned."""
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
            If a name is unknown or a value is refused.
        """
        fields = self.model_dump()
        for key, value in settings.items():
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
            If the text is not JSON, is of another schema, or a setting is missing, unknown or refused.
        """
        try:
            fields = json.loads(text)
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


_TAGS: Final = ("adam", "sgd", "rmsprop", "cmaes", "cell", "perceptron")


def _describe(error: ValidationError, name: Any) -> str:
    """Return an error message that says what is wrong with every refused field."""
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
            lines.append(f"{where} is {item['input']!r}: {message[0].lower()}{message[1:]}")
    return f"recipe {name!r}: " + "; ".join(lines)


def _suggestion(name: str) -> str:
    """Return the setting that was probably meant, as part of an error message; an empty text where none is close."""
    meant = [_RENAMED[name]] if name in _RENAMED else get_close_matches(name, _setting_names(Recipe, ""), 1)
    return f" (did you mean {meant[0]}?)" if meant else ""


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
