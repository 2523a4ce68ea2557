"""`InnerLoop`, the record of all settings of how motifs are trained. The settings are checked when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import (
    Array,
    checked_array,
    checked_choice,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_names,
    checked_number,
    checked_sequence,
)
from spd_fast.engine.optimizers import Adam, Optimizer
from spd_fast.engine.specs import Parameters, element_of
from spd_fast.learnables.initial_scales import checked_scales
from spd_fast.learnables.rates import learning_rates

__all__ = ["INNER_OPTIMIZER", "Init", "InitDistribution", "InnerLoop"]

INNER_OPTIMIZER: Final = Adam(lr=5e-5, weight_decay=1e-6)
"""The paper's optimizer of the inner loop, and the default."""

Init = Literal["shared", "motif"] | Sequence[Parameters]
InitDistribution = Literal["pytorch", "nasbench101", "normal"]


@dataclass(frozen=True, eq=False, kw_only=True)
class InnerLoop:
    """All settings of an inner loop, but for cells, shape and dish. `InnerLoop.of` makes it from arguments as users write them.

    Parameters
    ----------
    epochs, batch_size, drop_last, order
        Which images each step sees. All settings are as in `spd_fast.train_motifs`.
    optimizer, schedule
        How the weights change.
    seed, replicate, init, init_distribution, initial_scales
        The initial weights and the sample orders.
    dtype, direct_convolutions
        How the arithmetic is done.
    statistics, batch_norm_momentum, evaluate, record
        What is read off the motifs.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of the wrong type; the message says what was expected. A boolean is no number.
    """

    epochs: int = 100
    batch_size: int = 20
    optimizer: Optimizer = INNER_OPTIMIZER
    schedule: Literal["cosine"] | Array | None = None
    seed: int = 0
    replicate: int = 0
    init: Init = "shared"
    init_distribution: InitDistribution = "pytorch"
    initial_scales: Array | None = None
    order: Array | None = None
    drop_last: bool = False
    dtype: "np.dtype[Any]" = np.dtype(np.float32)  # noqa: RUF009 - a dtype cannot be changed
    direct_convolutions: bool = False
    statistics: Literal["batch", "running"] = "batch"
    batch_norm_momentum: float = 0.1
    evaluate: bool = True
    record: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        record = checked_names("record", self.record, "step_loss")
        unknown = set(record) - {"step_loss", "step_accuracy"}
        if unknown:
            raise ValueError(f"record names {sorted(unknown)[0]!r}, expected 'step_loss' or 'step_accuracy'")
        checked_instance(
            "optimizer", self.optimizer, get_args(Optimizer), "an optimizer such as spd_fast.Adam(lr=0.001)"
        )
        if isinstance(self.init, str):
            checked_choice("init", self.init, ("shared", "motif"))
        else:
            for weights in checked_sequence(
                "init", self.init, "weights by name, one dict for each cell, or 'shared' or 'motif'"
            ):
                checked_instance(
                    "one of init", weights, Mapping, "a dict of arrays by name, as TrainResult.parameters holds them"
                )
        checked = {
            "record": record,
            "epochs": checked_integer("epochs", self.epochs, 0),
            "batch_size": checked_integer("batch_size", self.batch_size, 1),
            "seed": checked_integer("seed", self.seed),
            "replicate": checked_integer("replicate", self.replicate),
            "batch_norm_momentum": checked_number("batch_norm_momentum", self.batch_norm_momentum, 0, 1),
            "statistics": checked_choice("statistics", self.statistics, ("batch", "running")),
            "init_distribution": checked_choice(
                "init_distribution", self.init_distribution, ("pytorch", "nasbench101", "normal")
            ),
        }
        checked |= {
            name: checked_flag(name, getattr(self, name)) for name in ("drop_last", "evaluate", "direct_convolutions")
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, **settings: Any) -> "InnerLoop":
        """Return the record of settings as users write them: a dtype by its name, an array as a list, None for a default."""
        if settings.get("optimizer", INNER_OPTIMIZER) is None:
            settings["optimizer"] = INNER_OPTIMIZER
        if "dtype" in settings:
            settings["dtype"] = element_of(settings["dtype"])
        if settings.get("initial_scales") is not None:
            settings["initial_scales"] = checked_scales(checked_array("initial_scales", settings["initial_scales"]))
        for name in ("schedule", "order"):
            value = settings.get(name)
            if value is not None and not isinstance(value, str):
                # a copy, so that nobody can change it while motifs are trained
                settings[name] = np.array(checked_array(name, value))
        return cls(**settings)

    def batch(self, images: int) -> int:
        """Return the number of images in a batch, of so many images."""
        return min(self.batch_size, images)

    def steps(self, images: int) -> int:
        """Return the number of steps of all epochs over so many images."""
        batch = self.batch(images)
        return self.epochs * (images // batch if self.drop_last else -(-images // batch))

    def rates(self, images: int) -> npt.NDArray[np.float64]:
        """Return the rates, which are the learning rates of all steps, over so many images.

        Raises
        ------
        ValueError
            If the schedule does not fit the number of steps.
        """
        return learning_rates(self.schedule, self.optimizer.lr, self.steps(images))
