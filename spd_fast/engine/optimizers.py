"""The optimizers of the inner loop."""

import math
from dataclasses import dataclass

import spd_fast._core as _core
from spd_fast.base.types import checked_flag, checked_number, checked_sequence, plain

__all__ = [
    "SGD",
    "Adam",
    "RMSProp",
]


@dataclass(frozen=True)
class Adam:
    """Adam as in PyTorch (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    lr : float, at least 0
        Learning rate: of every step, or the first of a cosine. A schedule that is an array takes its place.
    betas : two floats, at least 0 and below 1
        Decay of the means of the gradient and of its square.
    eps : float, at least 0
        Added to the root of the mean square.
    weight_decay : float, at least 0
        This multiple of the weights is added to the gradient.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range, or no number.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_numbers(self, "lr", "betas", "eps", "weight_decay")
        _require(self, "at least 0", lr=self.lr >= 0, eps=self.eps >= 0, weight_decay=self.weight_decay >= 0)
        _require(
            self, "two of at least 0 and below 1", betas=len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        )

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer(
            "adam", momentum=self.betas[0], decay=self.betas[1], eps=self.eps, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as in PyTorch, with momentum and Nesterov's variant of it.

    Parameters
    ----------
    lr : float, at least 0
        Learning rate: of every step, or the first of a cosine. A schedule that is an array takes its place.
    momentum : float, at least 0
    nesterov : bool
        Look ahead along the momentum.
    weight_decay : float, at least 0
        This multiple of the weights is added to the gradient.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range, or no number.
    """

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_numbers(self, "lr", "momentum", "weight_decay")
        object.__setattr__(self, "nesterov", checked_flag("SGD.nesterov", self.nesterov))
        _require(self, "at least 0", lr=self.lr >= 0, momentum=self.momentum >= 0, weight_decay=self.weight_decay >= 0)

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer("sgd", momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


@dataclass(frozen=True)
class RMSProp:
    """RMSProp as in TensorFlow 1, NAS-Bench-101's optimizer (Ying et al. 2019, arXiv:1902.09635).

    The mean square of the gradient begins at 1. The defaults are the benchmark's.

    Parameters
    ----------
    lr : float, at least 0
        Learning rate: of every step, or the first of a cosine. A schedule that is an array takes its place.
    alpha : float, 0 to 1
        Decay of the mean square.
    eps : float, at least 0
        Added to the mean square, inside the root.
    momentum : float, at least 0
    weight_decay : float, at least 0
        This multiple of the weights is added to the gradient.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range, or no number.
    """

    lr: float = 0.2
    alpha: float = 0.9
    eps: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        _require_numbers(self, "lr", "alpha", "eps", "momentum", "weight_decay")
        _require(self, "at least 0", lr=self.lr >= 0, eps=self.eps >= 0, momentum=self.momentum >= 0)
        _require(self, "at least 0", weight_decay=self.weight_decay >= 0)
        _require(self, "0 to 1", alpha=0 <= self.alpha <= 1)

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer(
            "rmsprop", momentum=self.momentum, decay=self.alpha, eps=self.eps, weight_decay=self.weight_decay
        )


Optimizer = Adam | SGD | RMSProp


def _require_numbers(owner: object, *names: str) -> None:
    """Replace the numbers of an optimizer by plain ones."""
    for name in names:
        value, label = getattr(owner, name), f"{type(owner).__name__}.{name}"
        if name == "betas":
            numbers = checked_sequence(label, value, "two numbers")
            object.__setattr__(owner, name, tuple(_finite(label, number) for number in numbers))
        else:
            object.__setattr__(owner, name, _finite(label, value))


def _finite(label: str, value: object) -> float:
    number = checked_number(label, value, finite=False)
    if math.isinf(number):
        raise ValueError(f"{label} is {plain(value)}, expected a finite number")
    return number


def _require(owner: object, expected: str, **conditions: bool) -> None:
    for name, holds in conditions.items():
        if not holds:
            raise ValueError(f"{type(owner).__name__}.{name} is {getattr(owner, name)}, expected {expected}")
