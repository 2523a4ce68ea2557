"""The reference: motifs in plain PyTorch, with which tests and benches compare the engine.

The code is written to be obviously right, not to be fast, and it imports nothing from spd_fast (a test makes sure of that). A cell is
any object with `matrix` and `ops`, or with six `ops` on the edges between four nodes; a shape is any object with the fields of
`MotifShape`. Functions take and return NumPy arrays in the dtype of the module.

References
----------
Ying et al. 2019, arXiv:1902.09635, and the rules of its published code: channels, projections, truncation, concatenation.
Dong and Yang 2020, NAS-Bench-201, arXiv:2001.00326, and its published code: ReLU, convolution, batch norm; average pooling without padding.
Abdelfattah et al. 2021, arXiv:2101.08134, and the definitions of its published code: zero-cost proxies.
PyTorch's documentation of the optimisers; RMSProp as TensorFlow 1 documents `tf.train.RMSPropOptimizer`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "METRICS",
    "PROXIES",
    "CellNetwork",
    "ConvNorm",
    "ConvNormRelu",
    "EdgeCellNetwork",
    "Motif",
    "RMSPropTF1",
    "ReluConvNorm",
    "build",
    "gradient",
    "margin",
    "metrics",
    "parameters_of",
    "relu_codes",
    "running_of",
    "train",
    "unrolled",
    "widths",
]

Array = npt.NDArray[Any]


class ConvNorm(nn.Module):
    """A convolution without bias and with "same" padding, followed by batch norm."""

    def __init__(self, c_in: int, c_out: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-5)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return bn(conv(x))."""
        normalised: Tensor = self.bn(self.conv(x))
        return normalised


class ConvNormRelu(ConvNorm):
    """Convolution, batch norm, ReLU: NAS-Bench-101's order."""

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(bn(conv(x)))."""
        activation: Tensor = self.relu(super().forward(x))
        return activation


class ReluConvNorm(ConvNorm):
    """ReLU, convolution, batch norm: NATS-Bench's order."""

    def forward(self, x: Tensor) -> Tensor:
        """Return bn(conv(relu(x)))."""
        return super().forward(self.relu(x))


def widths(matrix: npt.ArrayLike, c_in: int, c_out: int) -> list[int]:
    """Return the channels of every vertex of a pruned cell.

    The vertices that feed the output share its channels; if these do not divide evenly, the first vertices take one more. Any
    other interior vertex is as wide as the widest interior vertex it feeds.
    """
    edges = np.asarray(matrix)
    last = len(edges) - 1
    feeding = [v for v in range(1, last) if edges[v, last]]
    width = {0: c_in, last: c_out}
    for position, v in enumerate(feeding):
        width[v] = c_out // len(feeding) + (position < c_out % len(feeding))
    for v in reversed(range(1, last)):
        if v not in width:
            width[v] = max(width[w] for w in range(v + 1, last) if edges[v, w])
    return [width[v] for v in range(last + 1)]


class CellNetwork(nn.Module):
    """The network of one cell. Its modules are `projection{v}`, which projects the cell's input into vertex v, and
    `vertex{v}`, the operation of vertex v."""

    def __init__(self, cell: Any, c_in: int, c_out: int) -> None:
        super().__init__()
        self.matrix = np.asarray(cell.matrix).astype(bool)
        self.last = len(self.matrix) - 1
        self.width = widths(self.matrix, c_in, c_out)
        for v in range(1, self.last + 1):
            if self.matrix[0, v]:
                self.add_module(f"projection{v}", ConvNormRelu(c_in, self.width[v], 1))
            if v < self.last:
                self.add_module(f"vertex{v}", self.operation(cell.ops[v], self.width[v]))

    @staticmethod
    def operation(name: str, width: int) -> nn.Module:
        """Make the operation of a vertex."""
        if name == "maxpool3x3":
            return nn.MaxPool2d(3, stride=1, padding=1)
        return ConvNormRelu(width, width, {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}[name])

    def forward(self, x: Tensor) -> Tensor:
        """Run the vertices in order; return the output vertex."""
        outputs: dict[int, Tensor] = {}
        for v in range(1, self.last):
            terms = [outputs[u][:, : self.width[v]] for u in range(1, v) if self.matrix[u, v]]
            if self.matrix[0, v]:
                terms.append(self.get_submodule(f"projection{v}")(x))
            outputs[v] = self.get_submodule(f"vertex{v}")(sum(terms[1:], start=terms[0]))
        parts = [outputs[u] for u in range(1, self.last) if self.matrix[u, self.last]]
        if not self.matrix[0, self.last]:
            return torch.cat(parts, dim=1)
        projected: Tensor = self.get_submodule(f"projection{self.last}")(x)
        return torch.cat(parts, dim=1) + projected if parts else projected


class EdgeCellNetwork(nn.Module):
    """The network of one cell of NATS-Bench. Its modules are `edge{source}{target}`, and `projection0` where channels change.

    Edges on no path from node 0 to node 3 are left out.
    """

    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

    def __init__(self, cell: Any, c_in: int, c_out: int) -> None:
        super().__init__()
        ops = {edge: op for edge, op in zip(self.edges, cell.ops, strict=True) if op != "none"}
        while dead := [
            (x, y)
            for x, y in ops
            if (x > 0 and not any(target == x for _, target in ops))
            or (y < 3 and not any(source == y for source, _ in ops))
        ]:
            ops = {edge: op for edge, op in ops.items() if edge not in dead}
        self.ops = ops
        if c_in != c_out:
            self.add_module("projection0", ConvNorm(c_in, c_out, 1))
        for (x, y), op in ops.items():
            self.add_module(f"edge{x}{y}", self.operation(op, c_out))

    @staticmethod
    def operation(name: str, width: int) -> nn.Module:
        """Make the operation of an edge."""
        if name == "skip_connect":
            return nn.Identity()
        if name == "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        return ReluConvNorm(width, width, {"nor_conv_3x3": 3, "nor_conv_1x1": 1}[name])

    def forward(self, x: Tensor) -> Tensor:
        """Run the nodes in order; return node 3."""
        nodes = [self.get_submodule("projection0")(x) if hasattr(self, "projection0") else x]
        for target in (1, 2, 3):
            entering = [self.get_submodule(f"edge{x}{y}")(nodes[x]) for x, y in self.ops if y == target]
            nodes.append(sum(entering[1:], start=entering[0]) if entering else torch.zeros_like(nodes[0]))
        return nodes[3]


class Motif(nn.Module):
    """A cell in a motif shape: stem, stacks of cells with 2x2 max-pooling between them, global average pooling, dense layer."""

    def __init__(self, cell: Any, shape: Any) -> None:
        super().__init__()
        c = shape.stem_channels
        on_edges = getattr(cell, "ops_on_edges", False)
        network: Any = EdgeCellNetwork if on_edges else CellNetwork
        self.stem = (ConvNorm if on_edges else ConvNormRelu)(shape.image_channels, c, 3)
        stacks = []
        for s in range(shape.stacks):
            c_out = shape.stem_channels * 2**s
            cells = []
            for _ in range(shape.cells_per_stack):
                cells.append(network(cell, c, c_out))
                c = c_out
            stacks.append(nn.Sequential(*cells))
        self.stacks = nn.ModuleList(stacks)
        self.downsample = nn.MaxPool2d(2, stride=2)
        self.last = nn.ReLU() if on_edges else nn.Identity()
        self.dense = nn.Linear(c, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, classes)."""
        x = self.stem(x)
        for s, stack in enumerate(self.stacks):
            if s > 0:
                x = self.downsample(x)
            x = stack(x)
        logits: Tensor = self.dense(self.last(x).mean(dim=(2, 3)))
        return logits


class RMSPropTF1(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 has it, with L2 weight decay.

    `eps` is inside the root, the mean square begins at 1, and momentum acts on the scaled step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        alpha: float = 0.9,
        eps: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        """Update every parameter from its gradient."""
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                mean_square = state.get("mean_square", torch.ones_like(w))
                step = state.get("step", torch.zeros_like(w))
                g = w.grad + group["weight_decay"] * w
                state["mean_square"] = group["alpha"] * mean_square + (1 - group["alpha"]) * g**2
                state["step"] = (
                    group["momentum"] * step + group["lr"] * g / (state["mean_square"] + group["eps"]).sqrt()
                )
                w -= state["step"]


def build(
    cell: Any, shape: Any, parameters: Mapping[str, Array] | None = None, *, dtype: torch.dtype = torch.float64
) -> Motif:
    """Return a motif with the given weights ({name: array}, as `TrainResult.initial[k]`), or with PyTorch's default ones."""
    module = Motif(cell, shape).to(dtype)
    if parameters is not None:
        own = dict(module.named_parameters())
        assert list(own) == list(parameters), (
            "the weights have other names or another order than those of the reference"
        )
        with torch.no_grad():
            for name, array in parameters.items():
                own[name].copy_(torch.tensor(np.asarray(array)))
    return module


def parameters_of(module: nn.Module) -> dict[str, Array]:
    """Return copies of the weights of a motif, by name."""
    return {name: w.detach().numpy().copy() for name, w in module.named_parameters()}


def running_of(module: nn.Module) -> dict[str, Array]:
    """Return copies of batch norm's running statistics, by name."""
    return {name: b.numpy().copy() for name, b in module.named_buffers() if not name.endswith("num_batches_tracked")}


def train(
    module: nn.Module,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    order: npt.ArrayLike,
    *,
    batch_size: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    rates: str | Sequence[float] | None = None,
    drop_last: bool = False,
    norm_momentum: float = 0.1,
    **settings: Any,
) -> tuple[Array, Array]:
    """Train a motif in place.

    Parameters
    ----------
    module : Motif
    images : ndarray, shape (N, C, H, W)
    labels : ndarray, shape (N,) int or (N, classes) float
    order : ndarray, shape (epochs, N), int
    batch_size : int
    optimizer : subclass of torch.optim.Optimizer
        It is made with the keywords in `settings`.
    rates : None, "cosine" or sequence of float
        A constant learning rate, a cosine, or the rate of every step.
    drop_last : bool
        Whether a last batch that is smaller than the others is left out.
    norm_momentum : float
        The momentum of batch norm's running statistics.

    Returns
    -------
    loss, accuracy : ndarray, shape (steps,)
        Loss and accuracy of every batch, before its update.
    """
    x, y = _tensors(module, images, labels)
    last = len(x) // batch_size * batch_size if drop_last else len(x)
    batches = [row[i : i + batch_size] for row in np.asarray(order) for i in range(0, last, batch_size)]
    stepper = optimizer(module.parameters(), **settings)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=len(batches)) if isinstance(rates, str) else None
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = norm_momentum
    module.train()
    losses, accuracies = [], []
    for t, batch in enumerate(batches):
        if rates is not None and not isinstance(rates, str):
            stepper.param_groups[0]["lr"] = float(rates[t])
        stepper.zero_grad()
        logits = module(x[batch])
        loss = F.cross_entropy(logits, y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.step()
        if cosine is not None:
            cosine.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(dim=1) == _classes(y[batch])).double().mean().item())
    return np.array(losses), np.array(accuracies)


def unrolled(
    module: nn.Module,
    arrays: Mapping[str, npt.ArrayLike],
    batches: Iterable[npt.ArrayLike],
    *,
    optimizer: str,
    rates: Sequence[float],
    step_weights: Sequence[float] | None = None,
    metric_weight: float = 1.0,
    **settings: Any,
) -> tuple[Tensor, dict[str, Any]]:
    """Return the value of a whole training as a tensor that autograd can differentiate through every step.

    The value is ``metric_weight * loss + sum_t step_weights[t] * loss_t``, with the loss after training.

    Parameters
    ----------
    module : Motif
        Its weights are the initial weights. They are not changed.
    arrays : mapping of "images", "labels" (N, classes), and optionally "valid_images", "valid_labels" to arrays
    batches : iterable of ndarray, int
        The positions of the images of each of T steps.
    optimizer : "adam", "sgd" or "rmsprop"
        The update is PyTorch's, or TensorFlow 1's for RMSProp. `settings` are the optimizer's.
    rates : sequence of T learning rates
    step_weights : sequence of T step weights, optional
    metric_weight : float
        Factor of the loss after training, which is taken on the validation images, or on the training images if there are no
        validation images.

    Returns
    -------
    value : Tensor, shape ()
    leaves : dict of Tensor, each a leaf that requires its gradient
        The arrays by name, "rates", and "initial": a dict of the initial weights.
    """
    dtype = next(module.parameters()).dtype
    leaves: dict[str, Any] = {
        name: torch.tensor(np.asarray(a), dtype=dtype, requires_grad=True) for name, a in arrays.items()
    }
    leaves["rates"] = torch.tensor(np.asarray(rates), dtype=dtype, requires_grad=True)
    leaves["initial"] = {name: w.detach().clone().requires_grad_() for name, w in module.named_parameters()}
    names = list(leaves["initial"])

    def cross_entropy(weights: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        logits = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (images,))
        return -(labels * F.log_softmax(logits, dim=1)).sum(dim=1).mean()

    w = list(leaves["initial"].values())
    a = [torch.zeros_like(v) for v in w]
    b = [torch.ones_like(v) if optimizer == "rmsprop" else torch.zeros_like(v) for v in w]
    value = torch.zeros((), dtype=dtype)
    for t, batch in enumerate(batches):
        loss = cross_entropy(w, leaves["images"][batch], leaves["labels"][batch])
        if step_weights is not None:
            value = value + step_weights[t] * loss
        g = torch.autograd.grad(loss, w, create_graph=True)
        g = tuple(gi + settings.get("weight_decay", 0.0) * wi for gi, wi in zip(g, w, strict=True))
        a, b, steps = _update(optimizer, t + 1, leaves["rates"][t], g, a, b, **settings)
        w = [wi - si for wi, si in zip(w, steps, strict=True)]
    if metric_weight:
        read_on = [leaves.get(f"valid_{name}", leaves[name]) for name in ("images", "labels")]
        value = value + metric_weight * cross_entropy(w, *read_on)
    return value, leaves


def _update(
    optimizer: str,
    t: int,
    rate: Tensor,
    g: Sequence[Tensor],
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    momentum: float = 0.0,
    nesterov: bool = False,
    alpha: float = 0.9,
    eps: float = 1e-8,
    **_: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return both states of the optimizer after step t = 1, 2, ..., and what the step subtracts from the weights."""
    if optimizer == "adam":
        b1, b2 = betas
        a = [b1 * ai + (1 - b1) * gi for ai, gi in zip(a, g, strict=True)]
        b = [b2 * bi + (1 - b2) * gi * gi for bi, gi in zip(b, g, strict=True)]
        first, second = 1 - b1**t, 1 - b2**t
        steps = [rate * ai / first / (_root(bi / second) + eps) for ai, bi in zip(a, b, strict=True)]
    elif optimizer == "sgd":
        a = [momentum * ai + gi for ai, gi in zip(a, g, strict=True)]
        steps = [rate * (gi + momentum * ai if nesterov else ai) for ai, gi in zip(a, g, strict=True)]
    else:
        b = [alpha * bi + (1 - alpha) * gi * gi for bi, gi in zip(b, g, strict=True)]
        a = [momentum * ai + rate * gi / torch.sqrt(bi + eps) for ai, bi, gi in zip(a, b, g, strict=True)]
        steps = a
    return list(a), list(b), list(steps)


def _root(v: Tensor) -> Tensor:
    """Return the square root, with derivative 0 at 0, where autograd's derivative is NaN."""
    return torch.where(v > 0, torch.sqrt(torch.where(v > 0, v, 1.0)), 0.0)


def metrics(
    module: nn.Module, images: npt.ArrayLike, labels: npt.ArrayLike, *, statistics: str = "batch"
) -> dict[str, Any]:
    """Return loss, accuracy, mean probability of the true class and logits on a whole set, by name.

    Batch norm uses the statistics of the whole set ("batch") or the running statistics ("running"). The module is not changed.
    """
    x, y = _tensors(module, images, labels)
    module = copy.deepcopy(module).train(statistics == "batch")
    with torch.no_grad():
        logits = module(x)
        return {name: f(logits, y).item() for name, f in METRICS.items()} | {"logits": logits.numpy()}


def gradient(
    module: nn.Module, images: npt.ArrayLike, labels: npt.ArrayLike, *, metric: str = "loss"
) -> tuple[float, dict[str, Array], Array]:
    """Return a metric with batch statistics over the whole set, its gradient in the weights {name: array}, and in the
    images."""
    x, y = _tensors(module, images, labels)
    x.requires_grad_(True)
    module = copy.deepcopy(module).train()
    value = METRICS[metric](module(x), y)
    names, weights = zip(*module.named_parameters(), strict=True)
    *d_weights, d_images = torch.autograd.grad(value, [*weights, x])
    return value.item(), {n: g.numpy() for n, g in zip(names, d_weights, strict=True)}, d_images.numpy()


def margin(module: nn.Module, images: npt.ArrayLike) -> float:
    """Return how far a motif on these images is from a kink: smaller rounding errors switch no ReLU and no pooling winner.

    It is the smallest |input| of a ReLU, or the smallest gap between the winner of a pooling window and the next lower value,
    whichever is less. Equal values are copies of one pixel, or zeros, so it does not matter which of them wins.
    """
    found: list[Tensor] = []

    def relu_input(_layer: nn.Module, inputs: Any) -> None:
        found.append(inputs[0].abs().min())

    def pool_input(layer: Any, inputs: Any) -> None:
        size, low = layer.kernel_size, -torch.inf
        x = F.pad(inputs[0], [layer.padding] * 4, value=low)
        x = x.unfold(2, size, layer.stride).unfold(3, size, layer.stride).flatten(4)
        winner = x.amax(dim=4, keepdim=True)
        found.append((winner - x.masked_fill(x == winner, low)).min())

    hooks: dict[type, Callable[..., None]] = {nn.ReLU: relu_input, nn.MaxPool2d: pool_input}
    module = copy.deepcopy(module).train()
    for layer in module.modules():
        if type(layer) in hooks:
            layer.register_forward_pre_hook(hooks[type(layer)])
    with torch.no_grad():
        module(_tensors(module, images, [])[0])
    return min(value.item() for value in found)


# ---- zero-cost proxies by their definitions. Each changes its motif, so a motif serves for one proxy only


def relu_codes(module: nn.Module, images: Tensor) -> Tensor:
    """Return which ReLUs are open, as zeros and ones: one row for each image."""
    found: list[Tensor] = []

    def note(_layer: nn.Module, _inputs: Any, out: Tensor) -> None:
        found.append((out > 0).flatten(1))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, nn.ReLU)]
    with torch.no_grad():
        module(images)
    for hook in hooks:
        hook.remove()
    return torch.cat(found, dim=1).to(images.dtype)


def _weights(module: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and of the dense layer."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _grad_norm(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    gradients = torch.autograd.grad(F.cross_entropy(module(images), labels), _weights(module))
    return sum(float(g.norm()) for g in gradients)


def _snip(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum of the absolute gradients in masks of ones that multiply the weights."""
    layers = {name: w.detach() for name, w in module.named_parameters() if w.ndim > 1}
    masks = {name: torch.ones_like(w, requires_grad=True) for name, w in layers.items()}
    masked = {name: w * masks[name] for name, w in layers.items()}
    loss = F.cross_entropy(torch.func.functional_call(module, masked, (images,)), labels)
    return sum(float(g.abs().sum()) for g in torch.autograd.grad(loss, list(masks.values())))


def _synflow(module: nn.Module, images: Tensor, _labels: Tensor) -> float:
    for owner in list(module.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(owner, name, nn.Identity())
    with torch.no_grad():
        for w in module.parameters():
            w.abs_()
    weights = _weights(module)
    gradients = torch.autograd.grad(module(torch.ones_like(images[:1])).sum(), weights)
    return sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True))


def _jacob_cov(module: nn.Module, images: Tensor, _labels: Tensor) -> float:
    images = images.detach().requires_grad_(True)
    (jacobian,) = torch.autograd.grad(module(images).sum(), images)
    v = np.linalg.eigvals(np.corrcoef(jacobian.reshape(len(images), -1).numpy())).real + 1e-5
    return float(-np.sum(np.log(v) + 1 / v))


def _nwot(module: nn.Module, images: Tensor, _labels: Tensor) -> float:
    codes = relu_codes(module, images)
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    return float(np.linalg.slogdet(kernel.numpy())[1])


PROXIES: dict[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "grad_norm": _grad_norm,
    "snip": _snip,
    "synflow": _synflow,
    "jacob_cov": _jacob_cov,
    "nwot": _nwot,
}


def _probability(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=1).gather(1, _classes(labels)[:, None]).mean()


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": F.cross_entropy,
    "probability": _probability,
    "accuracy": lambda logits, labels: (logits.argmax(dim=1) == _classes(labels)).double().mean(),
}


def _classes(labels: Tensor) -> Tensor:
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


def _tensors(module: nn.Module, images: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Tensor, Tensor]:
    dtype = next(module.parameters()).dtype
    y = torch.tensor(np.asarray(labels))
    return torch.tensor(np.asarray(images), dtype=dtype), y.to(dtype) if y.ndim == 2 else y.long()
