from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

version: str
compiler: str
flags: str
isa: str

_Float32: TypeAlias = npt.NDArray[np.float32]
_Float64: TypeAlias = npt.NDArray[np.float64]
_Int64: TypeAlias = npt.NDArray[np.int64]

class _Record:
    """What the engine hands back. Its fields are read-only."""

    __match_args__: ClassVar[tuple[str, ...]]
    """The names of the fields."""

# One tensor in a flat vector: its name, where it begins, its shape.
_Slice: TypeAlias = tuple[str, int, tuple[int, ...]]

class Tables(_Record):
    """Where a motif's weights are in its vector of `n_parameters`, and its running statistics in rows of `batch_norms`."""

    parameters: tuple[_Slice, ...]
    n_parameters: int
    running: tuple[_Slice, ...]
    batch_norms: int

class MotifSpec:
    def __init__(
        self,
        *,
        vertices: int,
        ops_on_edges: bool,
        matrix: Sequence[int],
        ops: Sequence[int],
        channels: Sequence[Sequence[int]],
        stem_channels: int,
        stacks: int,
        cells_per_stack: int,
        classes: int,
        image_channels: int,
        height: int,
        width: int,
    ) -> None: ...
    @staticmethod
    def perceptron(
        *,
        hidden: Sequence[int],
        slope: float,
        loss: str,
        classes: int,
        image_channels: int,
        height: int,
        width: int,
    ) -> MotifSpec: ...
    @property
    def tables(self) -> Tables: ...
    def flops(self) -> float: ...
    def memory(self, batch: int, *, backward: bool) -> int: ...

class Optimizer:
    def __init__(
        self,
        kind: str,
        *,
        momentum: float = 0.0,
        decay: float = 0.0,
        eps: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None: ...

def default_threads() -> int: ...
def fma_peak(seconds: float = 0.1) -> float: ...
def clock_rate(seconds: float = 0.1) -> float: ...
def read_rate(bytes: int, seconds: float = 0.1) -> float: ...
def write_rate(bytes: int, seconds: float = 0.1) -> float: ...
def uniforms(tensors: Sequence[tuple[int, int, int, int, int]]) -> _Float64: ...

class Metrics(_Record):
    probability: _Float64
    loss: _Float64
    accuracy: _Float64
    logits: npt.NDArray[Any]

class Training(_Record):
    loss: _Float64
    accuracy: _Float64
    seconds: _Float64
    diverged_step: _Int64
    step_loss: _Float64
    step_accuracy: _Float64
    train: Metrics
    valid: Metrics

class SupernetSteps(_Record):
    step_loss: _Float64
    step_accuracy: _Float64
    diverged_step: int

class Gradient(_Record):
    probability: _Float64
    loss: _Float64
    accuracy: _Float64
    d_parameters: list[npt.NDArray[Any]]
    d_images: npt.NDArray[Any]
    d_labels: npt.NDArray[Any]

class Hypergradient(_Record):
    value: _Float64
    loss: _Float64
    probability: _Float64
    accuracy: _Float64
    step_loss: _Float64
    diverged_step: _Int64
    trained: list[npt.NDArray[Any]]
    d_images: npt.NDArray[Any]
    d_labels: npt.NDArray[Any]
    d_valid_images: npt.NDArray[Any]
    d_valid_labels: npt.NDArray[Any]
    d_rates: _Float64
    d_momenta: _Float64
    d_initial: list[npt.NDArray[Any]]

class LogitGradient(_Record):
    d_parameters: list[npt.NDArray[Any]]
    d_images: list[npt.NDArray[Any]]

# Arrays of one call have one element type, float32 or float64, by which the engine's is chosen. The weights are trained in place.
def train(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    valid_images: npt.NDArray[Any] | None,
    valid_labels: npt.NDArray[Any] | None,
    order: _Int64,
    batch: int,
    drop_last: bool,
    optimizer: Optimizer,
    rates: _Float64,
    parameters: Sequence[npt.NDArray[Any]],
    running: Sequence[npt.NDArray[Any]],
    batch_norm_momentum: float,
    batch_norm_eps: float,
    batch_statistics: bool,
    evaluate: bool,
    record_steps: bool,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> Training: ...
def train_supernet(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    order: _Int64,
    optimizer: Optimizer,
    rates: _Float64,
    first_step: int,
    slices: Sequence[npt.NDArray[np.int32]],
    weights: npt.NDArray[Any],
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    batch_norm_eps: float,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> SupernetSteps: ...
def gradient(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    parameters: Sequence[npt.NDArray[Any]],
    metric: str,
    batch_norm_eps: float,
    want_parameters: bool,
    want_images: bool,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> Gradient: ...
def hypergradient(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    valid_images: npt.NDArray[Any] | None,
    valid_labels: npt.NDArray[Any] | None,
    order: _Int64,
    batch: int,
    drop_last: bool,
    optimizer: Optimizer,
    rates: _Float64,
    initial: Sequence[npt.NDArray[Any]],
    steps: int,
    first_step: int,
    metric: str,
    metric_weight: float,
    step_weights: _Float64 | None,
    batch_norm_eps: float,
    memory: float,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> Hypergradient: ...
def logit_gradient(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    parameters: Sequence[npt.NDArray[Any]],
    batch_norm: bool,
    batch_norm_eps: float,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> LogitGradient: ...
def activations(
    specs: Sequence[MotifSpec],
    images: npt.NDArray[Any],
    parameters: Sequence[npt.NDArray[Any]],
    batch_norm_eps: float,
    direct_convolutions: bool,
    threads: int,
    progress: Callable[[float], object] | None,
) -> list[_Int64]: ...

class _Op(_Record):
    height: int
    width: int
    elements: int

class ConvOp(_Op):
    size: int
    c_in: int
    c_out: int
    weight: int
    forward: str
    wgrad: str
    dgrad: str | None
    terms: int
    flows: int
    keeps: bool

class SumOp(_Op):
    channels: int
    terms: int
    flows: int
    gathers: bool
    passes: bool
    relu: bool

class PoolOp(_Op):
    size: int
    average: bool
    channels: int
    gathered: int
    elements_in: int

class DenseOp(_Op):
    c_in: int
    c_out: int

class HeadOp(_Op):
    channels: int
    classes: int
    terms: int

class Profile(_Record):
    parts: list[str]
    ops: list[ConvOp | SumOp | PoolOp | DenseOp | HeadOp]
    parameters: int
    lanes: int
    whole: _Float64
    timed: _Float64
    seconds: _Float64

def profile(
    spec: MotifSpec,
    images: _Float32,
    labels: _Float32,
    parameters: _Float32,
    optimizer: Optimizer,
    rate: float,
    batch_norm_momentum: float,
    batch_norm_eps: float,
    direct_convolutions: bool,
    repeats: int,
    progress: Callable[[float], object] | None,
) -> Profile: ...

class kernels:
    class Conv(_Record):
        y: npt.NDArray[Any]
        dx: npt.NDArray[Any]
        dk: npt.NDArray[Any]
        seconds: list[float]
        """Of forward, dgrad and wgrad; empty for the reference."""

    class BatchNorm(_Record):
        z: npt.NDArray[Any]
        mean: npt.NDArray[Any]
        var: npt.NDArray[Any]
        dy: npt.NDArray[Any]
        dgamma: npt.NDArray[Any]
        dbeta: npt.NDArray[Any]

    class Pool(_Record):
        y: npt.NDArray[Any]
        dx: npt.NDArray[Any]

    class Relu(_Record):
        z: npt.NDArray[Any]
        dx: npt.NDArray[Any]

    class Head(_Record):
        loss: float
        logit: npt.NDArray[Any]
        dx: npt.NDArray[Any]
        dweight: npt.NDArray[Any]
        dbias: npt.NDArray[Any]

    class Dense(_Record):
        a: npt.NDArray[Any]
        dx: npt.NDArray[Any]
        dweight: npt.NDArray[Any]
        dbias: npt.NDArray[Any]

    algorithms: list[str]
    @staticmethod
    def algorithms_at(height: int, width: int) -> list[str]: ...
    @staticmethod
    def conv(
        x: npt.NDArray[Any],
        k: npt.NDArray[Any],
        dy: npt.NDArray[Any],
        algorithm: str = "direct",
        repeats: int = 0,
        threads: int = 1,
    ) -> kernels.Conv: ...
    @staticmethod
    def conv_ref(x: npt.NDArray[Any], k: npt.NDArray[Any], dy: npt.NDArray[Any]) -> kernels.Conv: ...
    @staticmethod
    def batch_norm(
        y: npt.NDArray[Any],
        gamma: npt.NDArray[Any],
        beta: npt.NDArray[Any],
        dz: npt.NDArray[Any],
        eps: float,
        ref: bool = False,
    ) -> kernels.BatchNorm: ...
    @staticmethod
    def avgpool(x: npt.NDArray[Any], dy: npt.NDArray[Any], ref: bool = False) -> kernels.Pool: ...
    @staticmethod
    def maxpool(x: npt.NDArray[Any], dy: npt.NDArray[Any], size: int, ref: bool = False) -> kernels.Pool: ...
    @staticmethod
    def relu(x: npt.NDArray[Any], dz: npt.NDArray[Any], ref: bool = False) -> kernels.Relu: ...
    @staticmethod
    def head(
        x: npt.NDArray[Any],
        weight: npt.NDArray[Any],
        bias: npt.NDArray[Any],
        label: npt.NDArray[Any],
        loss: str = "softmax",
        ref: bool = False,
    ) -> kernels.Head: ...
    @staticmethod
    def dense(
        x: npt.NDArray[Any],
        weight: npt.NDArray[Any],
        bias: npt.NDArray[Any],
        da: npt.NDArray[Any],
        slope: float,
        ref: bool = False,
    ) -> kernels.Dense: ...

class nasbench:
    class Malformed(ValueError): ...

    class Columns(_Record):
        vertices: npt.NDArray[np.uint8]
        edge_bits: npt.NDArray[np.uint32]
        op_codes: npt.NDArray[np.uint16]
        module_hash: npt.NDArray[np.uint8]
        trainable_parameters: npt.NDArray[np.int32]

    class HashIndex:
        def __init__(self, module_hash: npt.NDArray[np.uint8]) -> None: ...
        def find(self, hex: str) -> int: ...

    class TableBuilder:
        def __init__(self, strict: bool) -> None: ...
        def add(self, data: bytes, threads: int = 0, look: Callable[[float], object] | None = None) -> None: ...
        def finish(self, threads: int = 0, look: Callable[[float], object] | None = None) -> None: ...
        def columns(self) -> nasbench.Columns: ...
        def budgets(self) -> list[int]: ...
        def runs(self) -> int: ...
        def column(self, metric: int, budget: int, run: int) -> _Float32: ...
        @property
        def records(self) -> int: ...
        @property
        def faults(self) -> int: ...
        @property
        def first_fault(self) -> str: ...
        @property
        def extended(self) -> int: ...
        @property
        def off_half(self) -> int: ...

    @staticmethod
    def enumerate_space(threads: int = 0, look: Callable[[float], object] | None = None) -> nasbench.Columns: ...
    @staticmethod
    def hash_cells(
        vertices: npt.NDArray[np.uint8],
        edge_bits: npt.NDArray[np.uint32],
        op_codes: npt.NDArray[np.uint16],
        threads: int = 0,
        look: Callable[[float], object] | None = None,
    ) -> npt.NDArray[np.uint8]: ...
    @staticmethod
    def md5(messages: Sequence[bytes]) -> list[bytes]: ...
    @staticmethod
    def crc32c_has_instruction() -> bool: ...
    @staticmethod
    def crc32c(data: bytes, instruction: bool = True) -> int: ...
