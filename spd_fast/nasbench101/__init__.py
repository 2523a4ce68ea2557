"""NAS-Bench-101: its files read without TensorFlow, its metrics in a memory-mapped table, its space without any file.

`enumerate_space` knows every cell; `convert` turns an official file into a table once, and `open` opens that at once.
`spd_fast.nasbench101.api` has the official names for scripts that exist.
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
