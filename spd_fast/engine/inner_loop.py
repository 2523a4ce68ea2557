"""`InnerLoop`, the record of all settings of how motifs are trained. The settings are checked when it is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array, checked_integer, checked_number
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
        unknown = set(self.record) - {"step_loss", "step_accuracy"}
        if unknown:
            raise ValueError(f"record names {sorted(unknown)[0]!r}, expected 'step_loss' or 'step_accuracy'")
        if self.statistics not in ("batch", "running"):
            raise ValueError(f"statistics is {self.statistics!r}, expected 'batch' or 'running'")
        for name in ("epochs", "batch_size", "seed", "replicate"):
            object.__setattr__(self, name, checked_integer(name, getattr(self, name)))
        if not 0 <= checked_number("batch_norm_momentum", self.batch_norm_momentum) <= 1:
            raise ValueError(f"batch_norm_momentum is {self.batch_norm_momentum}, expected 0 to 1")
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}, expected at least 0")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, expected at least 1")
        if isinstance(self.init, str) and self.init not in ("shared", "motif"):
            raise ValueError(f"init is {self.init!r}, expected 'shared' or 'motif'")
        if self.init_distribution not in ("pytorch", "nasbench101", "normal"):
            raise ValueError(
                f"init_distribution is {self.init_distribution!r}, expected 'pytorch', 'nasbench101' or 'normal'"
            )

    @classmethod
    def of(cls, **settings: Any) -> "InnerLoop":
        """Return the record of settings as users write them: a dtype by its name, an array as a list, None for a default."""
        if settings.get("optimizer", INNER_OPTIMIZER) is None:
            settings["optimizer"] = INNER_OPTIMIZER
        if "dtype" in settings:
            settings["dtype"] = element_of(settings["dtype"])
        if settings.get("initial_scales") is not None:
            settings["initial_scales"] = checked_scales(settings["initial_scales"])
        for name in ("schedule", "order"):
            value = settings.get(name)
            if value is not None and not isinstance(value, str):
                settings[name] = np.array(value)  # a copy, so that nobody can change it while motifs are trained
        return cls(**settings | {"record": tuple(settings.get("record", ()))})

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
