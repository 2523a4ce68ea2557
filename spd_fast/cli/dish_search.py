"""The command ``spd-fast dish-search``: search with dishes that are learned on the way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import named_progress, out, table_of
from spd_fast.cli.options import Dask, Ray, Settings, Threads, TruthFile, executor_of, recipe_names, writable_folder
from spd_fast.cli.recipes import recipe_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from spd_fast.outer.dish_search import DishSearchResult


@app.command(
    "dish-search",
    continues=True,
    examples=(
        "spd-fast dish-search --max-labelled 30 --out runs/slopes",
        "spd-fast dish-search --recipe valid_c --cells 1000 --start 30 --per-round 5",
    ),
)
def dish_search(
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=recipe_names, help="How dishes are learned; a recipe's name or JSON file."
        ),
    ] = "rawal_slope",
    truth: TruthFile = None,
    cells: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Draw N candidates from the truth. Default: all of them.")
    ] = None,
    max_labelled: Annotated[int, typer.Option(metavar="N", min=1, help="Label at most N candidates in all.")] = 40,
    start: Annotated[
        int, typer.Option(metavar="N", min=1, help="Label N random candidates before the first dish.")
    ] = 18,
    per_round: Annotated[
        int, typer.Option(metavar="N", min=2, help="Label N candidates a round: the best ones, and one at random.")
    ] = 2,
    stop_at: Annotated[
        float | None,
        typer.Option(metavar="X", help="Stop when an accuracy reaches X. Default: go on until --max-labelled."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=writable_folder,
            help="Folder of the search. Default: runs/dish-search-NAME-seedN.",
        ),
    ] = None,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the dishes and of all random candidates.")] = 0,
    settings: Settings = None,
) -> Result:
    """Search for the best candidate of a truth: in every round, learn a dish on all labelled candidates, score the others
    with it, and label the best.

    After Ctrl-C, a kill or a crash the same command continues; at most a second of work is lost.
    """
    from spd_fast.outer.dish_search import dish_search
    from spd_fast.truth.table import TruthTable

    chosen = recipe_of(recipe, None, settings)
    table = TruthTable.load(truth, cell_type=chosen.cell_type).trainable()
    if cells is not None:
        table = table.sample(cells, seed)
    candidates, accuracy = table.compared(chosen.outer.truth)
    where = folder if folder is not None else Path("runs") / f"dish-search-{chosen.name}-seed{seed}"
    with executor_of(ray, dask) as executor, named_progress("learning the first dish") as update:
        result = dish_search(
            candidates,
            accuracy,
            chosen,
            max_labelled=max_labelled,
            start=start,
            per_round=per_round,
            stop_at=stop_at,
            seed=seed,
            folder=where,
            threads=threads,
            executor=executor,
            progress=update,
        )
    found = _print_search(result, candidates, accuracy)
    return Result(found | {"written": where}, wrote=where, settings={"recipe": json.loads(chosen.to_json())})


# ---- search


def facts_of_candidate(candidate: Any) -> dict[str, Any]:
    """Return what --json says of a candidate: its slope, or its hash and its graph."""
    if hasattr(candidate, "slope"):
        return {"slope": candidate.slope}
    graph = candidate.to_json() if hasattr(candidate, "to_json") else {}
    return {"cell": candidate.module_hash, **graph}


def _print_search(
    result: "DishSearchResult", candidates: "Sequence[Any]", accuracy: "npt.NDArray[Any]"
) -> dict[str, Any]:
    """Print what was labelled and the best of it; return it for --json."""
    from spd_fast.spaces.candidate import name_of

    rows = [
        {
            "label": number,
            "round": each.round,
            "candidate": name_of(candidates[each.row]),
            "why": each.why,
            "truth": each.accuracy,
            "best so far": float(best),
        }
        for number, (each, best) in enumerate(zip(result.labelled, result.best_so_far, strict=True), start=1)
    ]
    out.print(table_of(f"{len(candidates)} candidates, {len(rows)} labelled", rows))
    best = result.best
    rank = 1 + int((accuracy > best.accuracy).sum())
    name = name_of(candidates[best.row])
    out.print(f"best: {name}, {best.accuracy:.4f}, number {rank} of the whole truth", markup=False)
    return {
        "candidates": len(candidates),
        "labelled": [
            {"round": each.round, "why": each.why, "truth": each.accuracy, **facts_of_candidate(candidates[each.row])}
            for each in result.labelled
        ],
        "best": {"truth": best.accuracy, "rank": rank, **facts_of_candidate(candidates[best.row])},
    }
