"""spd_fast: the Synthetic Petri Dish on a compiled CPU engine.

The package trains motifs, which are cells in tiny networks, on a dish, which is a tiny data set. It computes exact gradients of their
metrics in the dish, learns the dish by them, and ranks cells of a search space by the scores of their motifs. Every name below is
loaded when it is first touched, so that ``import spd_fast`` itself loads neither numpy nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spd_fast import nasbench101 as nasbench101
    from spd_fast import natsbench as natsbench
    from spd_fast import recipes as recipes
    from spd_fast import supernet as supernet
    from spd_fast import torch as torch
    from spd_fast.base.errors import InvalidCellError as InvalidCellError
    from spd_fast.dish import Dish as Dish
    from spd_fast.engine.gradients import motif_gradient as motif_gradient
    from spd_fast.engine.hypergradient import Hypergradient as Hypergradient
    from spd_fast.engine.hypergradient import motif_hypergradient as motif_hypergradient
    from spd_fast.engine.optimizers import SGD as SGD
    from spd_fast.engine.optimizers import Adam as Adam
    from spd_fast.engine.optimizers import RMSProp as RMSProp
    from spd_fast.engine.training import MotifMetrics as MotifMetrics
    from spd_fast.engine.training import TrainResult as TrainResult
    from spd_fast.engine.training import train_motifs as train_motifs
    from spd_fast.motif import MOTIF_A as MOTIF_A
    from spd_fast.motif import MOTIF_B as MOTIF_B
    from spd_fast.motif import MOTIF_C as MOTIF_C
    from spd_fast.motif import NASBENCH101 as NASBENCH101
    from spd_fast.motif import MotifShape as MotifShape
    from spd_fast.motif import count_flops as count_flops
    from spd_fast.motif import count_parameters as count_parameters
    from spd_fast.outer.dish_search import DishSearchResult as DishSearchResult
    from spd_fast.outer.dish_search import dish_search as dish_search
    from spd_fast.outer.fit import FitResult as FitResult
    from spd_fast.outer.fit import fit_dish as fit_dish
    from spd_fast.predictors.bananas import BananasPredictor as BananasPredictor
    from spd_fast.predictors.spd import SPDPredictor as SPDPredictor
    from spd_fast.ranking.rank import Ranking as Ranking
    from spd_fast.ranking.rank import rank as rank
    from spd_fast.recipes.settings import Recipe as Recipe
    from spd_fast.scoring import score_cells as score_cells
    from spd_fast.spaces.cell import Cell as Cell
    from spd_fast.spaces.nats_cell import NatsCell as NatsCell
    from spd_fast.spaces.notations import cell_of as cell_of
    from spd_fast.spaces.perceptron import Perceptron as Perceptron
    from spd_fast.spaces.perceptron import PerceptronShape as PerceptronShape
    from spd_fast.truth.table import TruthTable as TruthTable

__version__ = "0.1.0"

_HOMES = {
    "base.errors": ["InvalidCellError"],
    "dish": ["Dish"],
    "engine.gradients": ["motif_gradient"],
    "engine.hypergradient": ["Hypergradient", "motif_hypergradient"],
    "engine.optimizers": ["Adam", "RMSProp", "SGD"],
    "engine.training": ["MotifMetrics", "TrainResult", "train_motifs"],
    "motif": ["MOTIF_A", "MOTIF_B", "MOTIF_C", "MotifShape", "NASBENCH101", "count_flops", "count_parameters"],
    "outer.fit": ["FitResult", "fit_dish"],
    "outer.dish_search": ["DishSearchResult", "dish_search"],
    "predictors.bananas": ["BananasPredictor"],
    "predictors.spd": ["SPDPredictor"],
    "ranking.rank": ["Ranking", "rank"],
    "recipes.settings": ["Recipe"],
    "scoring": ["score_cells"],
    "spaces.cell": ["Cell"],
    "spaces.nats_cell": ["NatsCell"],
    "spaces.notations": ["cell_of"],
    "spaces.perceptron": ["PerceptronShape", "Perceptron"],
    "truth.table": ["TruthTable"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ["nasbench101", "natsbench", "recipes", "supernet", "torch"]

__all__ = ["__version__", *_HOME_OF, *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOME_OF.get(name, name)}")
    except ModuleNotFoundError as error:
        from spd_fast.base.extras import explained

        raise explained(error) from error
    value = getattr(module, name) if name in _HOME_OF else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
