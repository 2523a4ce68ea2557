"""Options that several commands share, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

BENCH_FOLDER = Path("bench/results")
TruthFile = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        metavar="FILE",
        help="Cells and accuracies (.npz), or a table of nasbench convert. Default: the one in the package for the recipe.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Default: the processors there are. Does not change results.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, help="Used in place of the recipe's.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting: --set inner.epochs=16 --set motif=B. May be repeated."
    ),
]
BenchCells = Annotated[
    Path | None, typer.Option("--cells", metavar="FILE", help="Cells (.json or .npz). Default: the 12 of the bench.")
]
BenchShapes = Annotated[str, typer.Option(metavar="ABC", help="Motif shapes.")]
BenchClock = Annotated[str, typer.Option(metavar="wall|cpu", help="cpu: of a machine that is busy otherwise.")]
BenchRounds = Annotated[int, typer.Option(metavar="N", min=1, help="Times that each is timed, in turns.")]
Core = Annotated[int | None, typer.Option(metavar="N", min=0, help="Processor to pin to. Default: the last.")]
BenchFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the record (JSON) and its figure (PNG).")
]
Images = Annotated[
    Path, typer.Option(metavar="PATH", help="Folder of IDX files (MNIST and kin), or an .npz of images and labels.")
]
TruthOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="The truth file to write (.npz).")]
TruthSeeds = Annotated[str, typer.Option(metavar="LIST", help="Seeds of the trainings.")]
TrainImages = Annotated[int, typer.Option(metavar="N", min=1, help="Training images.")]
ValidImages = Annotated[int, typer.Option(metavar="N", min=1, help="Validation images.")]
TestImages = Annotated[int, typer.Option(metavar="N", min=1, help="Test images.")]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Images in a step.")]
CosineRate = Annotated[float, typer.Option(metavar="RATE", help="Adam's learning rate; falls by a cosine.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="A table that nasbench convert wrote (.npz).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def integers(option: str, text: str) -> list[int]:
    """Return the whole numbers of an option, which stand between commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected whole numbers with commas between, such as 2,6,18") from None
