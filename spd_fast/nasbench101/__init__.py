"""NAS-Bench-101 without TensorFlow: its files, a table of its metrics, and its space.

`enumerate_space` lists every cell of the space and needs no file. `convert` turns an official file into a table; `open` maps
that table into memory. `spd_fast.nasbench101.api` has the classes and methods of the official package, for scripts that were
written for it.
"""

from spd_fast.nasbench101.convert import convert
from spd_fast.nasbench101.moves import crossover, isomorphic, mutate, neighbours
from spd_fast.nasbench101.space import Space, enumerate_space
from spd_fast.nasbench101.table import Evaluation, Table
from spd_fast.nasbench101.table import open_table as open

__all__ = [
    "Evaluation",
    "Space",
    "Table",
    "convert",
    "crossover",
    "enumerate_space",
    "isomorphic",
    "mutate",
    "neighbours",
    "open",
]
