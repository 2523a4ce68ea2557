"""`BananasPredictor`: the predictor of BANANAS, an ensemble of small networks on the path encoding of cells.

The paper names it as the best predictor where much time may pass before the first query (section 5.4). The search around it,
which mutates the best cells and draws among them, is not here.

References
----------
White, Neiswanger and Savani 2021, BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search,
arXiv:1910.11858, and the code that its authors released (naszilla), which fixes what the article leaves open.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, Literal, Self, overload

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from spd_fast.base.display import ShownProgress, shown_share
from spd_fast.base.seeds import derived_seed
from spd_fast.base.types import (
    Progress,
    checked_choice,
    checked_flag,
    checked_integer,
    checked_number,
    checked_shown_progress,
)
from spd_fast.outer.fit import one_torch_thread
from spd_fast.predictors.features import path_encoding
from spd_fast.predictors.regressor import CellRegressor, Cells, cells_of, checked_labelled, warn_if_alike
from spd_fast.spaces.cell import OPS, Cell

__all__ = ["LOWER_BOUND", "BananasPredictor"]

LOWER_BOUND: Final = 4.5
"""The lower bound of errors in per cent that the authors' code has for NAS-Bench-101."""
_REMEDY: Final = "the path encoding is that of NAS-Bench-101's cells; SPDPredictor takes others"
_BELOW: Final = 0.5
_LONGEST_PATH: Final = 5
_QUERY_CELLS: Final = 4096


class BananasPredictor(CellRegressor):
    """Predicts accuracies of NAS-Bench-101's cells by an ensemble of small networks on their path encoding.

    Parameters
    ----------
    loss : "mape" or "mae"
        What each network minimises. "mape" is the article's mean absolute percentage error ``mean |(p - b) / (e - b) - 1|``
        with errors e in per cent, predictions p and a lower bound b. "mae" is the mean absolute error ``mean |p - e|``, which
        is the default of the authors' code.
    lower_bound : float, optional
        The bound b in per cent; it must be below the error of every labelled cell. Default: the smaller of 4.5, the authors'
        number for NAS-Bench-101, and half a percentage point below the smallest error of the labelled cells.
    longest_path : int, 0 to 5
        The encoding has a column for each path with at most this number of operations. The authors' code truncates at 3 (40
        columns); 5 is the full encoding (364 columns).
    ensemble : int, at least 1
        Number of networks, which differ in their initial weights and in the orders of their batches.
    layers, width : int, at least 1
        Number of hidden layers of each network, and of units in each of them.
    epochs, batch_size : int, at least 1
        Passes over the labelled cells, and cells in a batch.
    lr : float, above 0
        Learning rate of Adam.
    seed : int, at least 0

    Attributes
    ----------
    weights_, biases_ : tuple of Tensor, float32
        Those of every layer, of all networks together: shapes (ensemble, inputs, outputs) and (ensemble, 1, outputs).
    lower_bound_ : float
        The bound of the last fit.
    longest_path_ : int
        That of the last fit.

    Notes
    -----
    Networks are fully connected with ReLU, uniform Glorot initial weights and biases of 0, and are trained by Adam with betas
    (0.9, 0.99) and eps 1e-7. All networks are trained in one batched computation on one thread, so the same arguments give the
    same bits. A network whose units have all died predicts one number for all cells; with ten layers of 20 units this does
    happen, and the mean over the ensemble then rests on the others.

    Examples
    --------
    >>> from spd_fast import TruthTable
    >>> labelled, others = TruthTable.load().split(60, seed=0)
    >>> predictor = BananasPredictor(epochs=20).fit(labelled.cells, labelled.accuracy)
    >>> accuracy, std = predictor.query(others.cells[:3], return_std=True)
    >>> accuracy.shape, std.shape
    ((3,), (3,))
    """

    weights_: tuple[Tensor, ...]
    biases_: tuple[Tensor, ...]
    lower_bound_: float
    longest_path_: int

    def __init__(
        self,
        *,
        loss: Literal["mape", "mae"] = "mape",
        lower_bound: float | None = None,
        longest_path: int = 3,
        ensemble: int = 5,
        layers: int = 10,
        width: int = 20,
        epochs: int = 150,
        batch_size: int = 32,
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.loss = loss
        self.lower_bound = lower_bound
        self.longest_path = longest_path
        self.ensemble = ensemble
        self.layers = layers
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed

    def fit(self, cells: Cells, accuracy: npt.ArrayLike, *, progress: ShownProgress = None) -> Self:
        """Learn from labelled cells.

        Parameters
        ----------
        cells : sequence of n Cell, or integers, shape (n, 3)
        accuracy : array-like, shape (n,), 0 to 1
            Accuracies as shares, because the loss is that of errors in per cent.
        progress : callable or bool, optional
            It is called with the share of the work that is done, 0 to 1. An exception that it raises stops the fit. Default: a bar, as
            `spd_fast.rank` shows it.

        Raises
        ------
        ValueError, TypeError
            If cells and accuracies do not fit each other, a parameter is unknown, or the lower bound is not below every error.

        Warns
        -----
        UserWarning
            If all accuracies are alike, so that there is nothing to learn.
        """
        settings = self._checked_settings()
        checked_shown_progress(progress)
        pool, known = checked_labelled(cells_of(cells, Cell, _REMEDY), accuracy)
        bad = np.flatnonzero((known < 0) | (known > 1))
        if len(bad):
            raise ValueError(
                f"accuracy[{bad[0]}] is {known[bad[0]]}, expected shares from 0 to 1: divide accuracies in per cent by 100"
            )
        errors = 100 * (1 - known)
        bound = min(LOWER_BOUND, errors.min() - _BELOW) if self.lower_bound is None else settings["lower_bound"]
        if settings["loss"] == "mape" and bound >= errors.min():
            raise ValueError(
                f"lower_bound is {bound} per cent, expected less than {errors.min():.4g}, the smallest error of the labelled "
                "cells: give a smaller one, or None"
            )
        warn_if_alike(known)
        inputs = _encoded(pool, settings["longest_path"])
        with one_torch_thread(), shown_share(progress, "training the ensemble") as report:
            layers = _initial(inputs.shape[1], settings)
            trained = _train(layers, inputs, torch.from_numpy(errors.astype(np.float32)), bound, settings, report)
        self.weights_, self.biases_ = trained
        self.lower_bound_, self.longest_path_ = float(bound), settings["longest_path"]
        return self

    @overload
    def query(
        self, cells: Cells, *, return_std: Literal[False] = False, progress: ShownProgress = None
    ) -> npt.NDArray[np.float64]: ...
    @overload
    def query(
        self, cells: Cells, *, return_std: Literal[True], progress: ShownProgress = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def query(
        self, cells: Cells, *, return_std: bool = False, progress: ShownProgress = None
    ) -> npt.NDArray[np.float64] | tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Predict the accuracies of cells.

        Parameters
        ----------
        cells : sequence of n Cell, or integers, shape (n, 3)
        return_std : bool
            Whether to return the standard deviations over the ensemble, too.
        progress : callable or bool, optional

        Returns
        -------
        accuracy : ndarray, shape (n,), float64
            The mean of the networks' predictions. It need not lie between 0 and 1.
        std : ndarray, shape (n,), float64
            With `return_std`: the standard deviation over the networks (divisor: their number), from which BANANAS chooses.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        TypeError
            If cells are not those of NAS-Bench-101.
        """
        check_is_fitted(self, "weights_")
        checked_shown_progress(progress)
        with_std = checked_flag("return_std", return_std)
        wanted = cells_of(cells, Cell, _REMEDY)
        predicted = np.empty((len(self.weights_[0]), len(wanted)))
        with one_torch_thread(), torch.no_grad(), shown_share(progress, "predicting accuracies") as report:
            for start in range(0, len(wanted), _QUERY_CELLS):
                inputs = _encoded(wanted[start : start + _QUERY_CELLS], self.longest_path_)
                errors = _errors(self.weights_, self.biases_, inputs.expand(len(predicted), -1, -1))
                predicted[:, start : start + _QUERY_CELLS] = 1 - errors.double().numpy() / 100
                if report is not None:
                    report(min(1.0, (start + _QUERY_CELLS) / len(wanted)))
        mean = predicted.mean(axis=0)
        return (mean, predicted.std(axis=0)) if with_std else mean

    def _checked_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "loss": checked_choice("loss", self.loss, ("mape", "mae")),
            "lower_bound": None if self.lower_bound is None else checked_number("lower_bound", self.lower_bound),
            "longest_path": checked_integer("longest_path", self.longest_path, 0, _LONGEST_PATH),
            "lr": checked_number("lr", self.lr),
            "seed": checked_integer("seed", self.seed, 0),
        }
        if not settings["lr"] > 0:
            raise ValueError(f"lr is {self.lr}, expected a number above 0")
        names = ("ensemble", "layers", "width", "epochs", "batch_size")
        return settings | {name: checked_integer(name, getattr(self, name), 1) for name in names}


def _encoded(cells: Any, longest_path: int) -> Tensor:
    """Return which paths of at most `longest_path` operations cells have, shape (n, columns); shorter paths come first."""
    columns = sum(len(OPS) ** length for length in range(longest_path + 1))
    return torch.from_numpy(path_encoding(cells)[:, :columns].astype(np.float32))


def _initial(inputs: int, settings: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return initial weights by Glorot and Bengio 2010, equation 16, and biases of 0, of all layers."""
    rng = np.random.default_rng(derived_seed(settings["seed"], "bananas weights"))
    ensemble, sizes = settings["ensemble"], [inputs, *[settings["width"]] * settings["layers"], 1]
    weights, biases = [], []
    for fan_in, fan_out in pairwise(sizes):
        reach = np.sqrt(6 / (fan_in + fan_out))
        drawn = rng.uniform(-reach, reach, (ensemble, fan_in, fan_out)).astype(np.float32)
        weights.append(torch.from_numpy(drawn).requires_grad_())
        biases.append(torch.zeros((ensemble, 1, fan_out), requires_grad=True))
    return tuple(weights), tuple(biases)


def _errors(weights: tuple[Tensor, ...], biases: tuple[Tensor, ...], inputs: Tensor) -> Tensor:
    """Return the errors in per cent that every network predicts, shape (ensemble, n), from inputs, shape (ensemble, n, columns)."""
    values = inputs
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = torch.baddbmm(bias, values, weight)
        if k < len(weights) - 1:
            values = torch.relu(values)
    return values[..., 0]


def _train(
    layers: tuple[tuple[Tensor, ...], tuple[Tensor, ...]],
    inputs: Tensor,
    errors: Tensor,
    bound: float,
    settings: dict[str, Any],
    progress: Progress | None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    weights, biases = layers
    optimizer = torch.optim.Adam([*weights, *biases], lr=settings["lr"], betas=(0.9, 0.99), eps=1e-7)
    scale = errors - bound if settings["loss"] == "mape" else torch.ones_like(errors)
    for epoch in range(settings["epochs"]):
        for batch in _batches(len(errors), epoch, settings):
            predicted = _errors(weights, biases, inputs[batch])
            # the networks share nothing, so the gradient of the sum is that of each network's own mean
            loss = ((predicted - errors[batch]) / scale[batch]).abs().mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if progress is not None:
            progress((epoch + 1) / settings["epochs"])
    return tuple(weight.detach() for weight in weights), tuple(bias.detach() for bias in biases)


def _batches(n: int, epoch: int, settings: dict[str, Any]) -> Iterator[Tensor]:
    """Return the cells of every batch of an epoch, for every network: integers of shape (ensemble, cells of the batch)."""
    rng = np.random.default_rng(derived_seed(settings["seed"], "bananas orders", epoch))
    order = rng.permuted(np.tile(np.arange(n), (settings["ensemble"], 1)), axis=1)
    for start in range(0, n, settings["batch_size"]):
        yield torch.from_numpy(order[:, start : start + settings["batch_size"]])
