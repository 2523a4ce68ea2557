"""The losses among which the label-free score ranks a cell: quantiles over cells drawn evenly from the space of NAS-Bench-101.

python bench/reference_losses.py > reference_losses.json

prints the setting ``outer.reference_losses`` of a recipe whose motifs are trained on an unlearned dish. With its defaults that is the one of
the recipe `curves` (four minutes of one core). No label is used.
"""

import argparse
import json
import sys

import numpy as np

from spd_fast import recipes
from spd_fast.nasbench101 import enumerate_space
from spd_fast.outer.start import start_dish
from spd_fast.scoring import reference_losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="curves", help="name of a recipe or a recipe file (default: curves)")
    parser.add_argument("--cells", type=int, default=400, help="number of cells (default: 400)")
    parser.add_argument("--seed", type=int, default=2026, help="seed of the draw of cells (default: 2026)")
    parser.add_argument("--replace", type=json.loads, default={}, help="settings of the recipe to change, as JSON")
    arguments = parser.parse_args()
    changed = {"outer.reference_losses": None} | arguments.replace
    recipe = recipes.load(arguments.recipe).replace(changed)
    space = enumerate_space()
    rows = np.sort(np.random.default_rng(arguments.seed).choice(len(space), arguments.cells, replace=False))
    found = reference_losses(start_dish(recipe), recipe, [space[row] for row in rows.tolist()])
    json.dump([[round(loss, 4) for loss in row] for row in found], sys.stdout)
    print()


if __name__ == "__main__":
    main()
