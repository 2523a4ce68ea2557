"""The search loop around a dish: what it labels, that it finds the best, and that a kill changes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small
import spd_fast as spd
from processes import files_of_at_most
from spd_fast import recipes
from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import Journal
from spd_fast.outer.dish_search import SCHEMA, DishSearchResult
from spd_fast.outer.runs import RunFolderError
from spd_fast.outer.start import start_dish
from spd_fast.scoring import score_cells

SLOPES = [spd.Perceptron(slope) for slope in np.linspace(0.01, 2.01, 40)]
TRUTH = np.array([-(np.log(each.slope / 0.25) ** 2) for each in SLOPES])
QUICK = recipes.get("rawal_slope").replace({"outer.epochs": 4, "inner.epochs": 20})
HOW: dict[str, Any] = {"max_labelled": 11, "start": 5, "per_round": 3, "threads": 1}


def test_a_search_without_labels_has_no_best_candidate() -> None:
    empty = DishSearchResult((), False)
    assert empty.best_so_far.shape == (0,)
    with pytest.raises(ValueError, match="labelled is empty, expected at least one candidate"):
        _ = empty.best


def test_a_round_labels_the_best_of_its_dish_and_one_at_random(tmp_path: Path) -> None:
    result = spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path / "search", seed=3, **HOW)
    assert [each.why for each in result.labelled] == ["start"] * 5 + ["best", "best", "random"] * 2
    assert [each.round for each in result.labelled] == [0] * 5 + [1] * 3 + [2] * 3
    rows = [each.row for each in result.labelled]
    assert len(set(rows)) == 11
    assert [each.accuracy for each in result.labelled] == TRUTH[rows].tolist()
    assert result.best_so_far[-1] == result.best.accuracy == max(TRUTH[rows])
    assert not result.reached
    # By hand: the dish of the first round, learned on the first labels alone.
    recipe = QUICK.replace({"outer.pool": None, "outer.cells": 5, "seed": derived_seed(3, "search", 1)})
    fit = spd.fit_dish([SLOPES[row] for row in rows[:5]], TRUTH[rows[:5]], recipe, threads=1)
    rest = [row for row in range(40) if row not in rows[:5]]
    scores = score_cells(fit.dish, recipe, [SLOPES[row] for row in rest])
    best = np.argsort(-scores, kind="stable")[:2]
    assert rows[5:7] == [rest[k] for k in best]
    assert [each.score for each in result.labelled[5:7]] == scores[best].tolist()
    assert (tmp_path / "search" / "round-002" / "dish.npz").is_file()


def test_a_function_is_asked_once_a_round() -> None:
    asked: list[list[float]] = []

    def measure(candidates: list[spd.Perceptron]) -> list[float]:
        asked.append([each.slope for each in candidates])
        return [TRUTH[SLOPES.index(each)] for each in candidates]

    by_function = spd.dish_search(SLOPES, measure, QUICK, **HOW)
    assert [len(each) for each in asked] == [5, 3, 3]
    assert by_function == spd.dish_search(SLOPES, TRUTH, QUICK, **HOW)


@pytest.mark.parametrize("killed_at", [0.3, 0.6, 0.75, 0.95])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path: Path, killed_at: float) -> None:
    whole = spd.dish_search(SLOPES, TRUTH, QUICK, **HOW)

    def kill(what: str, share: float) -> None:
        if share >= killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, progress=kill, **HOW)
    assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW) == whole


def test_more_labels_continue_a_search(tmp_path: Path) -> None:
    whole = spd.dish_search(SLOPES, TRUTH, QUICK, **HOW)
    first = spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **(HOW | {"max_labelled": 7}))
    assert first.labelled == whole.labelled[:7]
    assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW) == whole
    assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **(HOW | {"max_labelled": 7})) == first


def test_it_stops_where_it_is_told_to() -> None:
    found = spd.dish_search(SLOPES, TRUTH, QUICK, **(HOW | {"max_labelled": 40, "stop_at": float(np.sort(TRUTH)[-3])}))
    assert found.reached
    assert found.best.accuracy >= np.sort(TRUTH)[-3]
    assert len(found.labelled) < 40


def test_any_candidates_any_recipe() -> None:
    """Cells, a recipe that keeps some out and compares a few at a time; to the last candidate."""
    cells, accuracy = small.pool()
    result = spd.dish_search(cells, accuracy, small.LEARNING, max_labelled=10, start=8, threads=1)
    assert sorted(each.row for each in result.labelled) == list(range(10))
    assert result.best.row == int(np.argmax(accuracy))


def test_it_climbs_to_the_best_slope() -> None:
    """A smooth truth that rises to one best slope: from eight labels whose best is the twelfth of 40 to one of the three best."""
    recipe = recipes.get("rawal_slope").replace({"outer.epochs": 20, "inner.epochs": 100})
    result = spd.dish_search(SLOPES, TRUTH, recipe, max_labelled=14, start=8, seed=2)
    assert result.best_so_far[7] == np.sort(TRUTH)[-12]
    assert result.best.accuracy >= np.sort(TRUTH)[-3]


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        (r"max_labelled is 4, expected 5 \(the number at the start\) to 40", {"max_labelled": 4}),
        (r"max_labelled is 41, expected 5", {"max_labelled": 41}),
        ("per_round is 1, expected at least 2", {"per_round": 1}),
        ("start is 2 candidates, expected at least 3", {"start": 2}),
        ("start is 41, expected at most 40", {"start": 41}),
        (r"start is \[0, 0, 1\], expected different places, 0 to 39", {"start": [0, 0, 1]}),
        (r"accuracy has shape \(3,\), expected \(40,\)", {"accuracy": TRUTH[:3]}),
        (r"accuracy returned shape \(1,\) for 5 candidates", {"accuracy": lambda cells: [1.0]}),
        ("the accuracy of candidate 7 is not finite", {"accuracy": lambda cells: [0, 0, np.nan], "start": [3, 5, 7]}),
    ],
)
def test_bad_arguments(match: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=match):
        spd.dish_search(**({"cells": SLOPES, "accuracy": TRUTH, "recipe": QUICK} | HOW | arguments))


def test_places_to_start_from_are_integers() -> None:
    for wrong in (0.5, True, "0"):
        with pytest.raises(TypeError, match=f"a place to start from is {wrong!r}, expected an integer"):
            spd.dish_search(SLOPES, TRUTH, QUICK, **(HOW | {"start": [wrong, 1, 2]}))


def test_a_search_killed_in_its_first_write_goes_on(tmp_path: Path) -> None:
    """Before anything is written, with half a first line, and with what other versions leave."""
    start = {"max_labelled": 5, "start": 5}
    whole = spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path / "whole", **start)
    content = (tmp_path / "whole" / "dish_search.jsonl").read_bytes()
    for name in (".search.json.4711.partial", ".dish_search.jsonl.4711-0123abcd.partial"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{")
        assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=folder, **start) == whole
        assert [path.name for path in folder.iterdir()] == ["dish_search.jsonl"]
    for length in range(0, len(content), 50):
        (folder / "dish_search.jsonl").write_bytes(content[:length])
        assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=folder, **start) == whole
        assert (folder / "dish_search.jsonl").read_bytes() == content


def test_a_search_whose_last_line_was_cut_short_goes_on(tmp_path: Path) -> None:
    """In the middle of a round: what is labelled is kept, and a function is asked for the rest alone."""
    asked: list[int] = []

    def measure(candidates: list[spd.Perceptron]) -> list[float]:
        asked.extend(SLOPES.index(each) for each in candidates)
        return [TRUTH[SLOPES.index(each)] for each in candidates]

    whole = spd.dish_search(SLOPES, measure, QUICK, folder=tmp_path, **HOW)
    lines = (tmp_path / "dish_search.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    for kept in (3, 7, 11):
        asked.clear()
        (tmp_path / "dish_search.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert spd.dish_search(SLOPES, measure, QUICK, folder=tmp_path, **HOW) == whole
        assert asked == [each.row for each in whole.labelled[kept - 1 :]]


def test_other_accuracies_are_another_search(tmp_path: Path) -> None:
    start = {"max_labelled": 5, "start": 5}
    spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **start)
    for other in (TRUTH[::-1], lambda cells: TRUTH[: len(cells)]):
        with pytest.raises(ValueError, match=r"begun with other settings \(accuracy is .*or choose another folder"):
            spd.dish_search(SLOPES, other, QUICK, folder=tmp_path, **start)


def test_another_file_to_start_from_is_another_search(tmp_path: Path) -> None:
    """The path of the dish is the same, what lies there is not."""
    from_file = QUICK.replace({"dish.start": "dish", "dish.source": str(tmp_path / "dish.npz")})
    start = {"max_labelled": 5, "start": 5}
    for seed in (0, 1):
        start_dish(QUICK.replace({"seed": seed})).save(tmp_path / "dish.npz")
        if seed == 0:
            spd.dish_search(SLOPES, TRUTH, from_file, folder=tmp_path / "search", **start)
    with pytest.raises(ValueError, match=r"begun with other settings \(dish\.source is "):
        spd.dish_search(SLOPES, TRUTH, from_file, folder=tmp_path / "search", **start)


def test_one_process_searches_in_a_folder(tmp_path: Path) -> None:
    def again(what: str, share: float) -> None:
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW)

    with pytest.raises(RunFolderError, match=r"cannot be continued: .*is being written by another process"):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, progress=again, **HOW)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """In the first line and in a later one; what was written stays, and the search goes on from there."""
    path = tmp_path / "dish_search.jsonl"
    told = r"dish_search\.jsonl cannot be written: .*File too large"
    with files_of_at_most(0), pytest.raises(RunFolderError, match=told):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW)
    whole = spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    with files_of_at_most(path.stat().st_size + 9), pytest.raises(RunFolderError, match=told):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW)
    assert path.read_bytes() == b"".join(lines[:3])
    assert spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **HOW) == whole


def test_a_folder_belongs_to_one_search(tmp_path: Path) -> None:
    start = {"max_labelled": 5, "start": 5}
    spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **start)
    with pytest.raises(
        ValueError,
        match=r"begun with other settings \(start is \[0, .*; per_round is 3, begun with 2; seed is 4, begun with 0",
    ):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, per_round=3, seed=4, **(start | {"start": [*range(5)]}))
    file = tmp_path / "dish_search.jsonl"
    header, *_ = file.read_text().splitlines()
    file.write_text("[")
    with pytest.raises(
        RunFolderError, match=r"cannot be continued: .*dish_search\.jsonl is not a journal of spd_fast\.dish_search/2"
    ):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **start)
    file.unlink()
    with Journal(file, SCHEMA, remedy="") as journal:
        journal.bind(json.loads(header)["identity"])
        journal.append([{"row": 1, "colour": 2}])
    with pytest.raises(
        RunFolderError, match=r"cannot be continued: .*unexpected keyword argument 'colour'; choose another"
    ):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path, **start)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "search.json").touch()
    with pytest.raises(
        RunFolderError, match=r"holds a search of an earlier version, in search\.json: choose another folder"
    ):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path / "old", **start)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunFolderError, match="is not a run folder and not empty"):
        spd.dish_search(SLOPES, TRUTH, QUICK, folder=tmp_path / "other", **start)
