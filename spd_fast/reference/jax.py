"""A motif in JAX, trained by one jitted step: a contender of the bench of inner epochs. It needs the extra `bench`.

Images have the shape (N, H, W, C), for which XLA's convolutions are fastest on a CPU. Max-pooling is written with slices, because the
derivative of `reduce_window` is several times slower on a CPU. The bench itself verifies that the step losses are those of the engine.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spd_fast.dish import Dish
from spd_fast.motif import MotifShape, cell_channels
from spd_fast.spaces.cell import Cell

__all__ = [
    "epoch",
    "logits",
]


def logits(weights: Mapping[str, Any], images: Any, cell: Cell, shape: MotifShape) -> Any:
    """Return the logits of a motif with batch statistics, shape (N, classes)."""
    x = _conv_norm_relu(weights, "stem", images)
    position = 0
    for stack in range(shape.stacks):
        if stack:
            x = _maximum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
        for index in range(shape.cells_per_stack):
            x = _cell(weights, f"stacks.{stack}.{index}", x, cell, cell_channels(cell, shape)[position])
            position += 1
    return x.mean(axis=(1, 2)) @ weights["dense.weight"].T + weights["dense.bias"]


def _cell(weights: Mapping[str, Any], name: str, x: Any, cell: Cell, channels: tuple[int, ...]) -> Any:
    last = cell.n_vertices - 1
    outputs: dict[int, Any] = {}
    for v in range(1, last):
        terms = [outputs[u][..., : channels[v]] for u in range(1, v) if cell.has_edge(u, v)]
        if cell.has_edge(0, v):
            terms.append(_conv_norm_relu(weights, f"{name}.projection{v}", x))
        total = sum(terms[1:], start=terms[0])
        if cell.ops[v] == "maxpool3x3":
            outputs[v] = _maxpool3x3(total)
        else:
            outputs[v] = _conv_norm_relu(weights, f"{name}.vertex{v}", total)
    parts = [outputs[u] for u in range(1, last) if cell.has_edge(u, last)]
    if cell.has_edge(0, last):
        projected = _conv_norm_relu(weights, f"{name}.projection{last}", x)
        return jnp.concatenate(parts, axis=-1) + projected if parts else projected
    return jnp.concatenate(parts, axis=-1)


def _conv_norm_relu(weights: Mapping[str, Any], name: str, x: Any) -> Any:
    kernel = weights[f"{name}.conv.weight"]
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    mean, var = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
    return jax.nn.relu((y - mean) * lax.rsqrt(var + 1e-5) * weights[f"{name}.bn.weight"] + weights[f"{name}.bn.bias"])


def _maxpool3x3(x: Any) -> Any:
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    rows = _maximum(padded[:, i : i + x.shape[1]] for i in range(3))
    return _maximum(rows[:, :, j : j + x.shape[2]] for j in range(3))


def _maximum(parts: Any) -> Any:
    first, *rest = parts
    for part in rest:
        first = jnp.maximum(first, part)
    return first


@partial(jax.jit, static_argnames=("cell", "shape", "lr", "weight_decay"), donate_argnums=(0,))
def _step(
    state: Any, images: Any, labels: Any, batch: Any, *, cell: Cell, shape: MotifShape, lr: float, weight_decay: float
) -> Any:
    """Return the state after one step of Adam (Kingma and Ba 2015, PyTorch's defaults) on images[batch], and the loss before."""
    weights, first, second, t = state

    def loss_of(weights: Any) -> Any:
        log_p = jax.nn.log_softmax(logits(weights, images[batch], cell, shape))
        return -jnp.take_along_axis(log_p, labels[batch][:, None], axis=1).mean()

    loss, gradient = jax.value_and_grad(loss_of)(weights)
    t = t + 1
    tree_map = jax.tree_util.tree_map
    gradient = tree_map(lambda g, w: g + weight_decay * w, gradient, weights)
    first = tree_map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
    rate, root = lr / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
    weights = tree_map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) * root + 1e-8), weights, first, second)
    return (weights, first, second, t), loss


def epoch(
    cell: Cell,
    shape: MotifShape,
    weights: Mapping[str, Any],
    dish: Dish,
    order: np.ndarray[Any, Any],
    batch_size: int,
    *,
    lr: float,
    weight_decay: float,
) -> Callable[[], np.ndarray[Any, Any]]:
    """Return a function that trains for one more epoch and returns the step losses; its first call compiles."""
    images = jnp.asarray(dish.images.transpose(0, 2, 3, 1))
    labels = jnp.asarray(dish.labels)
    batches = [jnp.asarray(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    own = {name: jnp.asarray(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w) for name, w in weights.items()}
    zeros = jax.tree_util.tree_map(jnp.zeros_like, own)
    state = (own, zeros, jax.tree_util.tree_map(jnp.zeros_like, own), jnp.zeros(()))
    step = partial(_step, cell=cell, shape=shape, lr=lr, weight_decay=weight_decay)

    def train_on() -> np.ndarray[Any, Any]:
        nonlocal state
        losses = []
        for batch in batches:
            state, loss = step(state, images, labels, batch)
            losses.append(loss)
        return np.array([float(loss) for loss in losses])

    return train_on
