"""Building truth: train networks of many cells on a real data set and record what they reach.

Every (cell, budget, seed) is one training from scratch, with a cosine schedule over its own budget, as NAS-Bench-101 did.
The build runs for hours, so it can be killed at any moment: results go to a journal beside the output as they come, and
the same call continues from there. The truth file itself appears only at the end, whole.
"""

import gzip
import hashlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from spd_fast import __version__, _core
from spd_fast.base.errors import InvalidCellError
from spd_fast.base.files import load_arrays
from spd_fast.base.machine import describe_machine
from spd_fast.base.stores import Journal
from spd_fast.base.types import Array
from spd_fast.cell import MAX_VERTICES, OPS, Candidate, Cell, CellColumns, Columns
from spd_fast.dish import Dish
from spd_fast.motif import Shape
from spd_fast.train import SGD, Adam, Initializer, RMSProp, TrainResult, forward_flops, train_motifs
from spd_fast.truth import MEASUREMENTS, TruthTable, columns_of, write_truth

__all__ = [
    "ImageData",
    "build_truth",
    "journal_path",
    "load_images",
    "random_cells",
    "read_cells",
    "resize_images",
    "sample_cells",
]

_CELLS_IN_SPACE: Final = 423_624
_CHUNK_SECONDS: Final = 60.0  # what a kill may cost, about
_IDX_FILES: Final = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_JOURNAL: Final = "spd_fast.truth_journal/2"


# ---- images


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image set as its files hold it.

    Attributes
    ----------
    train_images : ndarray, shape (N, C, H, W), uint8 or float
    train_labels : ndarray, shape (N,), int
    test_images, test_labels : ndarray or None
        The test set; None where the files have none.
    name : str
        The folder or file, for messages and provenance.
    """

    train_images: Array
    train_labels: Array
    test_images: Array | None
    test_labels: Array | None
    name: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if (images is None) != (labels is None):
                raise ValueError(f"{self.name} has {split} images or {split} labels, expected both or neither")
            if images is None:
                continue
            if images.ndim == 3:
                images = images[:, None]
                object.__setattr__(self, f"{split}_images", images)
            if images.ndim != 4 or not 1 <= images.shape[1] <= 4 or images.dtype.kind not in "uif":
                raise ValueError(
                    f"{self.name}: {split} images are {images.dtype} {images.shape}, expected numbers of shape (N, H, W) or (N, C, H, W), C 1 to 4"
                )
            if labels.ndim != 1 or labels.dtype.kind not in "ui" or len(labels) != len(images):
                raise ValueError(
                    f"{self.name}: {split} labels are {labels.dtype} {labels.shape}, expected integers of shape ({len(images)},)"
                )
            if images.dtype.kind == "f" and not np.isfinite(images).all():
                raise ValueError(f"{self.name}: {split} images hold NaN or infinity, expected finite numbers")
            object.__setattr__(self, f"{split}_labels", labels.astype(np.int64))
        if self.test_images is not None and self.test_images.shape[1:] != self.train_images.shape[1:]:
            raise ValueError(
                f"{self.name}: test images are {self.test_images.shape[1:]}, expected {self.train_images.shape[1:]} as in training"
            )

    def digest(self) -> str:
        """SHA-256 of every image and label, 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_images(path: str | os.PathLike[str]) -> ImageData:
    """Read a labelled image set.

    Parameters
    ----------
    path : path
        A folder with the four IDX files of MNIST and its kin (``train-images-idx3-ubyte`` and so on, plain or .gz), or an
        .npz with arrays ``images`` (N, H, W) or (N, C, H, W) and ``labels`` (N,), optionally ``test_images`` and
        ``test_labels``. Without a test set, test images are drawn from `images`.

    Raises
    ------
    FileNotFoundError
        If the path or one of its files is not there.
    ValueError
        If a file is not what its name says, was cut short, or shapes disagree.
    """
    source = Path(path)
    if source.is_dir():
        arrays = {name: _read_idx(_plain_or_gz(source, file)) for name, file in _IDX_FILES.items()}
        return ImageData(**arrays, name=os.fspath(source))
    arrays = load_arrays(source, what="image file")
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        held = ", ".join(arrays) or "no arrays"
        raise ValueError(f"image file {source} holds {held}, but no {missing[0]!r}; expected 'images' and 'labels'")
    return ImageData(
        arrays["images"], arrays["labels"], arrays.get("test_images"), arrays.get("test_labels"), os.fspath(source)
    )


def _plain_or_gz(folder: Path, name: str) -> Path:
    candidates = [folder / name, folder / f"{name}.gz"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz: expected the four IDX files of an image set")


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes: 0, 0, type 8, number of axes, big-endian lengths, data."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"IDX file {path} is damaged or was cut short: {error}") from error
    axes = 3 if "idx3" in path.name else 1
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"IDX file {path} begins with {content[:4].hex(' ') or 'nothing'}, expected 00 00 08 0{axes}: bytes on {axes} axes"
        )
    header = 4 + 4 * axes
    if len(content) < header:
        raise ValueError(f"IDX file {path} has {len(content)} bytes, expected a header of {header}: cut short")
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4).astype(np.int64)
    expected = header + int(np.prod(shape))
    if len(content) != expected:
        raise ValueError(
            f"IDX file {path} has {len(content)} bytes, expected {expected} for its shape {tuple(shape.tolist())}: cut short or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def resize_images(images: Array, size: int) -> npt.NDArray[np.float32]:
    """Resample to `size` x `size` by area: each new pixel is the mean of the image over the square it covers.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W)
    size : int, >= 1

    Returns
    -------
    ndarray, shape (N, C, size, size), float32
        Computed in double.

    Notes
    -----
    The image is taken as piecewise constant; new pixel i covers old rows i H / size to (i + 1) H / size, a row that it covers
    in part counting for that part. No padding; where size divides H and W this is block averaging.
    """
    rows, columns = (_area_weights(n, size) for n in images.shape[2:])
    resized = np.empty((*images.shape[:2], size, size), np.float32)
    for at in range(0, len(images), 1024):
        resized[at : at + 1024] = rows @ images[at : at + 1024].astype(np.float64) @ columns.T
    return resized


def _area_weights(old: int, new: int) -> npt.NDArray[np.float64]:
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: npt.NDArray[np.float64] = np.clip(covered, 0, None) * (new / old)
    return weights


# ---- cells


def random_cells(n: int, seed: int) -> list[Cell]:
    """Draw cells as random search on NAS-Bench-101 does, from the whole space, no two isomorphic.

    A raw cell has 7 vertices, every edge with probability 1/2 and every operation with 1/3; it is pruned, and drawn again
    if it is then outside the space or has the hash of an earlier one.

    Parameters
    ----------
    n : int, 0 to 423,624 (drawing most of the space takes hours)
    seed : int, >= 0

    Raises
    ------
    ValueError
        If `n` or `seed` is out of range.
    """
    if not 0 <= n <= _CELLS_IN_SPACE:
        raise ValueError(f"n is {n}, expected 0 to {_CELLS_IN_SPACE}: the number of cells in the space")
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected at least 0")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn: dict[str, Cell] = {}
    while len(drawn) < n:
        matrix = np.triu(rng.integers(0, 2, (MAX_VERTICES, MAX_VERTICES)), 1)
        interior = [OPS[code] for code in rng.integers(0, len(OPS), MAX_VERTICES - 2)]
        try:
            cell = Cell(matrix, ["input", *interior, "output"])
        except InvalidCellError:
            continue
        drawn.setdefault(cell.module_hash, cell)
    return list(drawn.values())


def sample_cells(n: int, seed: int, source: str | os.PathLike[str] | None = None) -> list[Cell]:
    """Draw `n` cells without isomorphic duplicates, from a file or from the whole space.

    Parameters
    ----------
    n : int, >= 0
    seed : int, >= 0
        A larger sample with the same seed begins with the smaller one.
    source : path, optional
        A file that `read_cells` reads. Cells are ranked by a digest of (seed, module_hash), so that the draw does not depend
        on their order in the file. Without it: `random_cells`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there, is damaged, or holds fewer than `n` different cells.
    InvalidCellError
        If an entry is not a cell.
    """
    if source is None:
        return random_cells(n, seed)
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected at least 0")
    cells = read_cells(source)
    first_of: dict[bytes, int] = {}
    for row, digest in enumerate(cells.module_hash):
        first_of.setdefault(digest.tobytes(), row)
    if not 0 <= n <= len(first_of):
        raise ValueError(f"n is {n}, expected 0 to {len(first_of)}: the number of different cells in {source}")
    ranked = sorted(first_of, key=lambda digest: hashlib.blake2b(b"%d/" % seed + digest, digest_size=16).digest())
    return [cells[first_of[digest]] for digest in ranked[:n]]


def read_cells(path: str | os.PathLike[str]) -> CellColumns:
    """Read a file of cells.

    Parameters
    ----------
    path : path
        An .npz with columns `vertices`, `edge_bits`, `op_codes` (and optionally `module_hash`), or a JSON list of cells
        ``{"matrix": [[...], ...], "ops": [...]}`` (or an object whose ``"cells"`` is one).

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there or is damaged.
    InvalidCellError
        If an entry is not a cell.
    """
    source = Path(path)
    if source.suffix == ".npz":
        arrays = load_arrays(source, what="cell file")
        missing = [name for name in ("vertices", "edge_bits", "op_codes") if name not in arrays]
        if missing:
            raise ValueError(f"cell file {source} lacks {missing[0]!r}, expected vertices, edge_bits and op_codes")
        return CellColumns(*(arrays.get(n) for n in ("vertices", "edge_bits", "op_codes", "module_hash")))  # type: ignore[arg-type]
    if not source.is_file():
        raise FileNotFoundError(f"cell file {source} does not exist")
    try:
        records = json.loads(source.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"cell file {source} is neither an .npz nor JSON: {error}") from error
    if isinstance(records, dict):
        records = records.get("cells")
    if not isinstance(records, list):
        raise ValueError(f'cell file {source} holds no list of cells, expected [{{"matrix": ..., "ops": ...}}, ...]')
    return CellColumns.from_cells(Cell.from_json(record) for record in records)


# ---- the build


@dataclass(frozen=True)
class _Settings:
    """Everything that decides a measurement; a journal is bound to it."""

    cells: str  # digest
    n_cells: int
    images: str  # digest
    shape: dict[str, Any]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    batch_size: int
    optimizer: str
    init: str
    initializer: str
    batch_norm_momentum: float
    image_size: int
    n_train: int
    n_valid: int
    n_test: int
    split_seed: int
    version: str

    def digest(self) -> str:
        """What identifies the build in the file that it wrote."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class _Splits:
    """Normalised images of the three splits; validation and test lie one behind the other in the dish."""

    dish: Dish
    labels: dict[str, npt.NDArray[np.int64]]


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Where the journal of a build that writes `out` lies: ``truth.npz.journal`` for ``truth.npz``."""
    return Path(f"{os.fspath(out)}.journal")


def build_truth(
    cells: Sequence[Candidate],
    data: ImageData | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    shape: Shape,
    budgets: Sequence[int] = (2, 6, 18),
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 50,
    optimizer: Adam | SGD | RMSProp | None = None,
    init: Literal["shared", "motif"] = "motif",
    initializer: Initializer = "pytorch",
    batch_norm_momentum: float = 0.1,
    image_size: int = 16,
    n_train: int = 5000,
    n_valid: int = 2000,
    n_test: int = 5000,
    split_seed: int = 0,
    threads: int | None = None,
    progress: Callable[[float], object] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TruthTable:
    """Train a network of every cell at every budget with every seed, and write a truth file.

    Parameters
    ----------
    cells : sequence of Cell, of NatsCell or of SigmoidMLP, no two of one `module_hash`
        `sample_cells` draws such cells.
    data : ImageData or path
        What `load_images` returns or reads.
    out : path
        The truth file, an .npz; must not exist, unless the same call wrote it: then it is read. Beside it lies the journal while
        the build runs (`journal_path`).
    shape : MotifShape, or MLPShape
        The network around each cell, or slope; its image channels and classes must be those of the data.
    budgets : sequence of int, >= 1, ascending
        Epochs. Each budget is a training of its own, with its own initial weights and cosine schedule.
    seeds : sequence of int
        Key initial weights and sample orders.
    batch_size : int
    optimizer : Adam, SGD or RMSProp, optional
        Default: ``Adam(lr=5e-3, weight_decay=1e-4)``.
    init : "motif" or "shared"
        Whether initial weights are drawn for every cell, or are the same for all of a seed, as far as they can be: differences
        between cells are then less noisy than their accuracies.
    initializer, batch_norm_momentum
        As in `train_motifs`.
    image_size : int, 4 to 64
        Side to which images are resampled (`resize_images`).
    n_train, n_valid, n_test : int, >= 1
        Images of the three splits. Training and validation images are drawn from the training set, test images from
        the test set (from the rest of the training set where there is none), by permutations keyed by `split_seed`.
    split_seed : int
        The splits are the same for all seeds of training.
    threads : int, optional
        Default: the processors that this process may use.
    progress : callable, optional
        Called with the share of the work done (by cost, 0..1) about ten times a second.
    provenance : mapping, optional
        Facts to store in the file besides those the build knows: where the cells come from, for one.

    Returns
    -------
    TruthTable
        The table written to `out`.

    Raises
    ------
    FileExistsError
        If `out` exists already and is not what this call writes.
    BlockingIOError
        If another process builds the same file.
    ValueError
        If an argument does not fit the data, or the journal of an earlier, interrupted build has other settings; the
        message names them.
    OSError
        If `out` cannot be written.

    Notes
    -----
    Metrics are read with batch norm's running statistics. Pixels are normalised by mean and standard deviation of the
    training images, per channel. Of a network that diverged the loss is NaN and the accuracy that of predicting class
    0. Same arguments, same measurements, whatever was interrupted and resumed and on however many threads; only
    ``seconds`` and the times in `provenance` differ.

    A killed build loses at most the chunk in work, about a minute. To give a build up, delete its journal.
    """
    optimizer = optimizer or Adam(lr=5e-3, weight_decay=1e-4)
    data = data if isinstance(data, ImageData) else load_images(data)
    columns = _checked_cells(cells)
    budgets, seeds = _checked_axis("budgets", budgets, lowest=1), _checked_axis("seeds", seeds)
    splits = _split(data, shape, image_size, {"train": n_train, "validation": n_valid, "test": n_test}, split_seed)
    settings = _Settings(
        cells=hashlib.sha256(";".join(cell.key for cell in columns).encode()).hexdigest(),
        n_cells=len(columns),
        images=data.digest(),
        shape=asdict(cast(Any, shape)),
        budgets=budgets,
        seeds=seeds,
        batch_size=batch_size,
        optimizer=repr(optimizer),
        init=init,
        initializer=initializer,
        batch_norm_momentum=batch_norm_momentum,
        image_size=image_size,
        n_train=n_train,
        n_valid=n_valid,
        n_test=n_test,
        split_seed=split_seed,
        version=__version__,
    )
    out = Path(out)
    with Journal(
        journal_path(out), _JOURNAL, remedy="delete the journal to begin anew, or choose another output"
    ) as journal:
        if _is_built(out, settings, journal):
            journal.delete()
            if progress:
                progress(1.0)
            return TruthTable.load(out)
        journal.bind(asdict(settings))
        done = {(each["cell"], each["budget"], each["seed"]): each for each in journal.records}
        costs = forward_flops(columns, shape, splits.dish.images.shape[1:])
        work = _Work(costs, budgets, seeds, lambda *key: key in done, progress)
        for budget, seed, rows in work.chunks(4 * (threads or _core.default_threads())):
            started = time.perf_counter()
            result = train_motifs(
                [columns[row] for row in rows],
                shape,
                splits.dish,
                epochs=budget,
                batch_size=batch_size,
                optimizer=optimizer,
                schedule="cosine",
                seed=seed,
                replicate=budget,
                init=init,
                threads=threads,
                progress=work.reporter(budget, rows),
                statistics="running",
                initializer=initializer,
                batch_norm_momentum=batch_norm_momentum,
            )
            records = _records(_measurements(result, splits.labels), rows, budget, seed)
            journal.append(records)
            journal.sync()
            done |= {(each["cell"], each["budget"], each["seed"]): each for each in records}
            work.finished(budget, seed, rows, time.perf_counter() - started)
        arrays = _tabulated(done, len(columns), budgets, seeds)
        write_truth(
            out,
            cells=columns,
            budgets=budgets,
            seeds=seeds,
            arrays=arrays,
            provenance=_provenance(data, settings, arrays) | dict(provenance or {}),
        )
        journal.delete()
    return TruthTable.load(out)


def _is_built(out: Path, settings: _Settings, journal: Journal) -> bool:
    """Return whether the same build wrote its file already and was killed before it could say so, or is asked for again.

    Raises
    ------
    FileExistsError
        If another file has its name.
    """
    if not out.exists():
        return False
    try:
        built = TruthTable.load(out).provenance.get("build")
    except (ValueError, OSError):
        built = None
    if built == settings.digest():
        return True
    if not len(journal):
        journal.delete()
    raise FileExistsError(f"{out} exists already: choose another name, or move it away")


def _checked_cells(cells: Sequence[Candidate]) -> Columns[Any]:
    if not len(cells):
        raise ValueError("cells is empty, expected at least one Cell")
    columns = columns_of(cells)
    first_of: dict[str, int] = {}
    for row, cell in enumerate(columns):
        earlier = first_of.setdefault(cell.module_hash, row)
        if earlier != row:
            raise ValueError(f"cells[{row}] is isomorphic to cells[{earlier}], expected different cells")
    return columns


def _checked_axis(name: str, values: Sequence[int], lowest: int = 0) -> tuple[int, ...]:
    axis = tuple(int(value) for value in values)
    if not axis or list(axis) != sorted(set(axis)) or axis[0] < lowest:
        raise ValueError(f"{name} are {list(axis)}, expected different integers of at least {lowest}, ascending")
    return axis


def _split(data: ImageData, shape: Shape, image_size: int, counts: dict[str, int], split_seed: int) -> _Splits:
    """Draw the three splits, resample and normalise them."""
    channels = data.train_images.shape[1]
    if channels != shape.image_channels:
        raise ValueError(
            f"{data.name} has images of {channels} channels, expected {shape.image_channels}, those of shape"
        )
    classes = 1 + max(int(labels.max()) for labels in (data.train_labels, data.test_labels) if labels is not None)
    if classes > shape.classes:
        raise ValueError(f"{data.name} has labels 0 to {classes - 1}, expected {shape.classes} classes, those of shape")
    shape.require_images((channels, image_size, image_size))
    for name, n in counts.items():
        if n < 1:
            raise ValueError(f"{n} {name} images are asked for, expected at least 1")
    order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(data.train_images))
    fit_and_valid = counts["train"] + counts["validation"]
    needed = fit_and_valid + (counts["test"] if data.test_images is None else 0)
    if needed > len(order):
        raise ValueError(
            f"n_train, n_valid and n_test ask for {needed} of the images in {data.name}, which has {len(order)}"
        )
    chosen = {
        "train": (data.train_images, data.train_labels, order[: counts["train"]]),
        "validation": (data.train_images, data.train_labels, order[counts["train"] : fit_and_valid]),
        "test": (data.train_images, data.train_labels, order[fit_and_valid:needed]),
    }
    if data.test_images is not None and data.test_labels is not None:
        rest = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(data.test_images))
        if counts["test"] > len(rest):
            raise ValueError(
                f"n_test is {counts['test']}, expected at most {len(rest)}: the test images of {data.name}"
            )
        chosen["test"] = (data.test_images, data.test_labels, rest[: counts["test"]])
    images = {name: resize_images(source[rows], image_size) for name, (source, _, rows) in chosen.items()}
    labels = {name: source[rows] for name, (_, source, rows) in chosen.items()}
    mean = images["train"].mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    deviation = images["train"].std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    if not (deviation > 0).all():
        raise ValueError(f"the training images of {data.name} are constant, expected images that differ")
    images = {name: ((array - mean) / deviation).astype(np.float32) for name, array in images.items()}
    dish = Dish(
        images["train"],
        labels["train"],
        np.concatenate([images["validation"], images["test"]]),
        np.concatenate([labels["validation"], labels["test"]]),
    )
    return _Splits(dish, labels)


def _measurements(result: TrainResult, labels: Mapping[str, Array]) -> dict[str, Array]:
    """Accuracies and losses (K,) of the three splits; held-out logits are (K, validation then test, classes)."""
    assert result.train is not None
    assert result.valid is not None
    validation, test = np.split(result.valid.logits, [len(labels["validation"])], axis=1)
    found: dict[str, Array] = {"seconds": result.seconds}
    for split, logits in (("train", result.train.logits), ("validation", validation), ("test", test)):
        z = logits.astype(np.float64)
        z[result.diverged] = np.nan  # argmax: class 0
        true = labels[split]
        found[f"{split}_accuracy"] = (z.argmax(axis=2) == true).mean(axis=1)
        top = z.max(axis=2, keepdims=True)
        log_total = np.log(np.exp(z - top).sum(axis=2)) + top[:, :, 0]
        found[f"{split}_loss"] = (log_total - z[:, np.arange(len(true)), true]).mean(axis=1)
    return found


def _records(
    measured: Mapping[str, Array], rows: npt.NDArray[np.int64], budget: int, seed: int
) -> list[dict[str, int | float | str]]:
    """Return one record for each row; numbers that JSON has no word for as text."""
    return [
        {"cell": int(row), "budget": budget, "seed": seed}
        | {
            name: number if math.isfinite(number := float(values[k])) else str(number)
            for name, values in measured.items()
        }
        for k, row in enumerate(rows)
    ]


def _tabulated(
    records: Mapping[tuple[int, int, int], Mapping[str, Any]],
    n: int,
    budgets: tuple[int, ...],
    seeds: tuple[int, ...],
) -> dict[str, npt.NDArray[np.floating]]:
    arrays = {name: np.empty((n, len(budgets), len(seeds)), np.float32) for name in MEASUREMENTS}
    for (cell, budget, seed), record in records.items():
        for name, array in arrays.items():
            array[cell, budgets.index(budget), seeds.index(seed)] = float(record[name])
    return dict(arrays)


def _provenance(data: ImageData, settings: _Settings, arrays: Mapping[str, Array]) -> dict[str, Any]:
    machine = describe_machine()
    size, test_set = settings.image_size, "the test set" if data.test_images is not None else "the same set"
    kept = {k: v for k, v in asdict(settings).items() if k not in ("cells", "n_cells", "budgets", "seeds", "version")}
    return kept | {
        "data": Path(data.name).name,
        "images_sha256": kept.pop("images"),
        "build": settings.digest(),
        "splits": f"{settings.n_train} training and {settings.n_valid} validation images, {settings.n_test} test images from {test_set}",
        "preprocessing": f"resampled by area to {size} x {size}, normalised by mean and deviation of the training images",
        "schedule": "cosine to 0 over each budget, every budget trained from scratch",
        "statistics": "batch norm's running statistics",
        "thread_hours": round(float(arrays["seconds"].sum(dtype=np.float64)) / 3600, 3),
        "machine": machine["processor"],
        "engine": f"spd_fast {machine['version']}, {machine['instruction_set']}, {machine['compiler']}",
        "date": date.today().isoformat(),
    }


class _Work:
    """What is still to train, cut into chunks that keep every thread busy for about a minute; and how much is done.

    Chunks may be of any size: a motif's result does not depend on what was trained beside it.
    """

    def __init__(
        self,
        costs: npt.NDArray[np.float64],
        budgets: tuple[int, ...],
        seeds: tuple[int, ...],
        done: Callable[[int, int, int], bool],
        progress: Callable[[float], object] | None,
    ) -> None:
        self._costs = costs
        self._groups = {
            (budget, seed): np.array([row for row in range(len(costs)) if not done(row, budget, seed)], dtype=np.int64)
            for seed in seeds
            for budget in budgets
        }
        self._total = float(costs.sum()) * sum(budgets) * len(seeds)
        self._left = sum(self._cost(budget, rows) for (budget, _), rows in self._groups.items())
        self._rate = 0.0  # cost a second
        self._progress = progress

    def _cost(self, budget: int, rows: npt.NDArray[np.int64]) -> float:
        return float(self._costs[rows].sum()) * budget

    def chunks(self, fewest: int) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
        """Yield (budget, seed, rows): at least `fewest` rows where there are as many, more where they are quick."""
        self._report(0)
        for (budget, seed), rows in self._groups.items():
            while len(rows):
                within = np.cumsum(self._costs[rows]) * budget <= self._rate * _CHUNK_SECONDS
                size = max(fewest, int(within.sum()))
                if len(rows) - size < fewest:
                    size = len(rows)
                yield budget, seed, rows[:size]
                rows = rows[size:]

    def reporter(self, budget: int, rows: npt.NDArray[np.int64]) -> Callable[[float], object]:
        cost = self._cost(budget, rows)
        return lambda share: self._report(share * cost)

    def finished(self, budget: int, seed: int, rows: npt.NDArray[np.int64], seconds: float) -> None:
        cost = self._cost(budget, rows)
        self._left -= cost
        self._rate = cost / max(seconds, 1e-3)
        self._report(0)

    def _report(self, in_work: float) -> None:
        if self._progress is not None:
            self._progress(min(1.0, max(0.0, 1 - (self._left - in_work) / self._total)))
