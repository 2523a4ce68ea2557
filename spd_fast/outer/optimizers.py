"""The outer optimizers, which change what is learned: Adam along the gradient, and CMA-ES.

Both change the free tensors in place. They return their state as plain arrays, so that a run can be resumed.

References
----------
Kingma and Ba 2015, Adam, arXiv:1412.6980. Hansen 2016, The CMA evolution strategy: a tutorial, arXiv:1604.00772, by the package
cmaes (Nomura and Shibata 2024, arXiv:2402.01373).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from spd_fast.base.extras import required
from spd_fast.base.seeds import derived_seed
from spd_fast.base.types import Array, Number
from spd_fast.recipes.settings import AdamSettings, CMAESSettings, OuterSettings

__all__ = [
    "Descent",
    "Evolution",
    "OuterOptimizer",
    "StepTaken",
    "clip_norm",
    "copies",
    "number",
    "optimizer_of",
]

MOST_SEARCHED: Final = 500
"""The largest number of free numbers for CMA-ES, which learns their covariance from generations of a few dozen dishes."""
_NORM_MEMORY: Final = 0.9
"""Decay of the running mean of the gradient's norm. Gradients are clipped at a multiple of this mean."""
_COSINE_END: Final = 0.1
"""The share of the learning rate at which a cosine schedule ends (Such et al. 2020, arXiv:1912.07768)."""
_STEP: Final = 0.4
"""The factor of the learning rate at each stage of the schedule "steps" (Rawal et al. 2020, arXiv:2005.13092)."""
_STEPS_AT: Final = (1 / 4, 5 / 8)
"""The shares of the outer epochs after which these stages begin."""


@dataclass(frozen=True)
class StepTaken:
    """What an outer step did: the gradient's norm before clipping, and the predicted change of the outer loss. If no step was
    taken, `skipped` says why."""

    gradient_norm: Number = None
    predicted: float = 0.0
    skipped: str = ""


class OuterOptimizer(Protocol):
    """An optimizer of the outer loop, which changes the free tensors."""

    def take(self, loss: Tensor, again: Callable[[], Number], epoch: int, norms: Sequence[Number]) -> StepTaken:
        """Take one outer step.

        Parameters
        ----------
        loss : Tensor
            The outer loss of the free tensors before the step.
        again : callable
            It measures the outer loss of the same cells with the present free tensors, and returns None if that is not finite.
        epoch : int
        norms : sequence of float or None
            The gradients' norms in the outer epochs before.
        """

    def state(self) -> dict[str, Array]:
        """Return copies of everything that the next step depends on, beside the free tensors."""

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Restore a state that `state` returned."""


def optimizer_of(free: Mapping[str, Tensor], outer: OuterSettings, seed: int) -> OuterOptimizer:
    """Return the optimizer that ``outer.optimizer`` names, for these free tensors. CMA-ES draws from the recipe's seed.

    Raises
    ------
    ValueError
        If CMA-ES would have to search too many numbers.
    """
    if not free:
        return NothingToStep()
    settings = outer.optimizer
    return Evolution(free, settings, seed) if isinstance(settings, CMAESSettings) else Descent(free, settings, outer)


class NothingToStep:
    """The optimizer of a recipe that learns step weights by ridge regression and nothing else."""

    def take(self, loss: Tensor, again: Callable[[], Number], epoch: int, norms: Sequence[Number]) -> StepTaken:
        """Change nothing, and return the reason."""
        return StepTaken(skipped="step weights alone are learned, by ridge regression")

    def state(self) -> dict[str, Array]:
        """Return an empty state."""
        return {}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Do nothing."""


class Descent:
    """Adam along the gradient. The recipe says how gradients are clipped and how the learning rate falls."""

    def __init__(self, free: Mapping[str, Tensor], settings: AdamSettings, outer: OuterSettings) -> None:
        self.free, self.settings, self.outer = free, settings, outer
        options = settings.model_dump(exclude={"name"})
        self.optimizer = torch.optim.Adam(list(free.values()), foreach=False, **options)

    def take(self, loss: Tensor, again: Callable[[], Number], epoch: int, norms: Sequence[Number]) -> StepTaken:
        """Follow the gradient of the loss. If it is not finite, change nothing."""
        outer = self.outer
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: value.grad.clone() for name, value in self.free.items() if value.grad is not None}
        norm = number(math.sqrt(sum(float(torch.sum(gradient.double() ** 2)) for gradient in gradients.values())))
        if norm is None:
            return StepTaken(skipped="the gradient is not finite")
        if outer.clip is not None:
            longest = clip_norm(outer.clip, norms)
            for value in self.free.values():
                if value.grad is not None and norm > longest:
                    value.grad *= longest / norm
        share = _rate_share(outer, epoch)
        if outer.schedule == "steps" and epoch > 0 and share != _rate_share(outer, epoch - 1):
            self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * share
        before = copies(self.free)
        self.optimizer.step()
        moved = {name: (self.free[name] - before[name]).detach().double() for name in gradients}
        return StepTaken(
            norm, sum(float(torch.sum(gradient.double() * moved[name])) for name, gradient in gradients.items())
        )

    def state(self) -> dict[str, Array]:
        """Return Adam's state. An array is named ``INDEX.NAME``, with the index of the free tensor."""
        return {
            f"{index}.{name}": torch.as_tensor(value).numpy().copy()
            for index, values in self.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Restore a state that `state` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = torch.from_numpy(array.copy())
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


class Evolution:
    """CMA-ES on all free numbers as one vector. The free tensors hold the mean of its distribution.

    An outer step is one generation, whose dishes are all measured on the same cells. Beside its seed, CMA-ES depends only on the
    losses that it was told. These are its state; to restore it, they are told to it again.
    """

    def __init__(self, free: Mapping[str, Tensor], settings: CMAESSettings, seed: int) -> None:
        self.free, self.settings = free, settings
        self.seed = derived_seed(seed, "cmaes") % 2**32
        size = sum(value.numel() for value in free.values())
        if size > MOST_SEARCHED:
            raise ValueError(
                f"CMA-ES would search {size} numbers, expected at most {MOST_SEARCHED}: learn fewer (dish.generator, dish.basis, "
                'rates, scales) or use outer.optimizer "adam"'
            )
        self.start = self._vector()
        self.restore({})

    def take(self, loss: Tensor, again: Callable[[], Number], epoch: int, norms: Sequence[Number]) -> StepTaken:
        """Measure a generation of dishes and move to the new mean. A dish without a finite loss ranks last."""
        drawn = [self.strategy.ask() for _ in range(self.strategy.population_size)]
        losses = []
        for vector in drawn:
            self._hold(vector)
            measured = again()
            losses.append(math.inf if measured is None else measured)
        self._tell(drawn, losses)
        self._hold(self.strategy.mean)
        return StepTaken()

    def state(self) -> dict[str, Array]:
        """Return the losses that CMA-ES was told, shape (generations, population)."""
        return {"told": np.array(self.told).reshape(len(self.told), self.strategy.population_size)}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Restore a state that `state` returned."""
        CMA = required("cmaes", 'outer.optimizer "cmaes"').CMA
        options = {"sigma": self.settings.sigma, "population_size": self.settings.population, "seed": self.seed}
        self.strategy = CMA(mean=self.start.copy(), **options)
        self.told: list[list[float]] = []
        for losses in arrays.get("told", np.empty((0, 0))).tolist():
            self._tell([self.strategy.ask() for _ in losses], losses)

    def _tell(self, drawn: Sequence[Array], losses: Sequence[float]) -> None:
        self.told.append(list(losses))
        self.strategy.tell(list(zip(drawn, losses, strict=True)))

    def _vector(self) -> Array:
        return np.concatenate([value.detach().double().numpy().ravel() for value in self.free.values()])

    def _hold(self, vector: Array) -> None:
        """Put a vector into the free tensors."""
        with torch.no_grad():
            for value, part in zip(self.free.values(), self._parts(vector), strict=True):
                value.copy_(torch.from_numpy(part.reshape(value.shape)))

    def _parts(self, vector: Array) -> list[Array]:
        ends = np.cumsum([value.numel() for value in self.free.values()])
        return np.split(vector, ends[:-1])


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached copies of tensors."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def number(value: float | None) -> Number:
    """Return a finite number as a float, and None for every other value."""
    return None if value is None or not np.isfinite(value) else float(value)


def _rate_share(outer: OuterSettings, epoch: int) -> float:
    """Return the outer learning rate of an outer epoch, as a share of the optimizer's."""
    if outer.schedule == "cosine":
        share = (1 + math.cos(math.pi * epoch / max(outer.epochs - 1, 1))) / 2
        return _COSINE_END + (1 - _COSINE_END) * share
    if outer.schedule == "steps":
        return _STEP ** sum(epoch >= at * outer.epochs for at in _STEPS_AT)
    return 1.0


def clip_norm(multiple: float, norms: Sequence[Number]) -> float:
    """Return the norm at which gradients are clipped: a multiple of the running mean of the earlier norms after clipping."""
    mean: float | None = None
    for norm in norms:
        if norm is not None:
            clipped = norm if mean is None else min(norm, multiple * mean)
            mean = clipped if mean is None else _NORM_MEMORY * mean + (1 - _NORM_MEMORY) * clipped
    return math.inf if mean is None else multiple * mean
