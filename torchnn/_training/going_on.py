"""What a fit needs to go on in another process: its state, and back."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from torchnn.layers._weightless import draws, set_draws
from torchnn.optimizers import TorchOptimizer
from torchnn.optimizers._base import SlotOptimizer


def state_of(fit: Any, epoch: int) -> dict[str, Any]:
    """Returns all that makes what is still to come, in plain values and tensors.

    Args:
        fit: The Fit, between two runs.
        epoch: The number of the epoch that comes next, or is not over.
    """
    model, optimizer = fit.model, fit.recipe.optimizer
    return {
        "began": fit.began,
        "name": fit.name,
        "epoch": epoch,
        "weights": dict(model.state_dict()),
        "frozen": [name for name, each in model.named_parameters() if not each.requires_grad],
        "draws": draws(model),
        "rule": _rule(optimizer),
        "optimizer": optimizer.state_dict(),
        "settings": _settings(optimizer),
        "history": {"epoch": fit.history.epoch, "history": fit.history.history},
        "callbacks": [[type(each).__name__, each.state_dict()] for each in fit.callbacks.callbacks],
        "logs": fit.logs,
        "stops": bool(model.stop_training),
        "has_warned": fit.has_warned,
        "order": fit.feed.order,
        "random": _random_state(),
    }


def go_on(fit: Any, state: Mapping[str, Any]) -> None:
    """Makes a fit that has begun what another one was when it told its state.

    Raises:
        ValueError: That was another fit; nothing has changed then.
    """
    _check(fit, state)
    model, optimizer = fit.model, fit.recipe.optimizer
    model.load_state_dict(state["weights"])
    for name, each in model.named_parameters():
        each.requires_grad = name not in state["frozen"]
    set_draws(model, state["draws"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["settings"].items():
        if getattr(optimizer, name) != value:
            setattr(optimizer, name, value)
    fit.history.epoch, fit.history.history = (state["history"][n] for n in ("epoch", "history"))
    _give_back(fit.callbacks.callbacks, state["callbacks"])
    fit.logs, fit.has_warned = state["logs"], state["has_warned"]
    model.stop_training = state["stops"]
    fit.began, fit.name = state["began"], state["name"]
    fit.feed.go_on(state["order"])
    _set_random_state(state["random"])
    if fit.ranks is not None:
        fit.ranks.seed = torch.initial_seed()
    fit.first = fit.epochs.stop if state["stops"] else state["epoch"]
    fit.place = fit.resumed()


def _give_back(callbacks: Sequence[Any], states: Sequence[tuple[str, Any]]) -> None:
    """Gives callbacks their states: the first, the second ... of a class those of its name.

    There may be others than before, as when the one is gone that made the fit stop.
    """
    kept: dict[str, list[Any]] = {}
    for name, own in states:
        kept.setdefault(name, []).append(own)
    for callback in callbacks:
        if own_kind := kept.get(type(callback).__name__):
            callback.load_state_dict(own_kind.pop(0))


def _check(fit: Any, state: Mapping[str, Any]) -> None:
    own = {n: tuple(t.shape) for n, t in _tensors(fit.model.state_dict()).items()}
    kept = {n: tuple(t.shape) for n, t in _tensors(state["weights"]).items()}
    different = (
        f"a model with the weights {kept}, not {own}"
        if kept != own
        else f"a model trained by {state['rule']}, not {_rule(fit.recipe.optimizer)}"
        if state["rule"] != _rule(fit.recipe.optimizer)
        else f"a fit that began after {state['began']} epochs, not {fit.began}"
        if state["began"] != fit.began and state["name"] != fit.goes_on
        else None
    )
    if different:
        raise ValueError(f"the backup is of {different}: each fit needs a folder of its own")


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if isinstance(t, Tensor) and not is_lazy(t)}


def _rule(optimizer: Any) -> str:
    """What an optimizer is, as far as its state goes."""
    own = optimizer.optimizer if isinstance(optimizer, TorchOptimizer) else optimizer
    return type(own).__name__


def _settings(optimizer: Any) -> dict[str, Any]:
    """What callbacks may have changed of an optimizer, such as the learning rate."""
    if not isinstance(optimizer, SlotOptimizer):  # one of PyTorch's has them in its state
        return {}
    return {n: v for n, v in optimizer.get_config().items() if isinstance(v, float)}


def _random_state() -> dict[str, Any]:
    """Where the generators of Python, NumPy and PyTorch are."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": devices,
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
