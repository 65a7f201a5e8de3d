"""Engines: what trains a run of batches in one call, and the choice of one.

fit, evaluate, predict and the callbacks know an engine by three methods and a counter; how many
steps it takes at once, and in which language, is its own affair.
"""

from torch import nn

from torchnn.autograd import AutogradEngine
from torchnn.fused import FusedEngine, NotFusedError, plan
from torchnn.fused import describe as describe_fused
from torchnn.recipe import Recipe

Engine = AutogradEngine | FusedEngine


def choose(model: nn.Module, recipe: Recipe | None) -> Engine:
    """Returns the engine for a model: the one place where that is decided.

    Raises:
        ValueError: compile asked for the fused engine, and the model is not one for it.
    """
    if recipe is not None and recipe.engine == "autograd":
        return AutogradEngine(model, recipe)
    try:
        return FusedEngine(plan(model, recipe), recipe)
    except NotFusedError as reason:
        if recipe is not None and recipe.engine == "fused":
            raise ValueError(f'engine="fused" cannot train this model: {reason}') from None
        return AutogradEngine(model, recipe)


def describe(model: nn.Module, recipe: Recipe | None) -> str:
    """Returns one line on the engine that choose would return, and why it is not the fused one."""
    if recipe is None:
        return "none before compile"
    if recipe.engine == "autograd":
        return f"{AutogradEngine.description}, as compile asked for"
    try:
        return describe_fused(plan(model, recipe))
    except NotFusedError as reason:
        return f"{AutogradEngine.description}, since {reason}"
