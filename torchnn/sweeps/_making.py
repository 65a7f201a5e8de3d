"""A trial's model: built of its settings, compiled, seeded, and made again of its weights."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch

from torchnn import _checks, _saving
from torchnn._engine.building import is_built
from torchnn._engine.choice import build_optimizer
from torchnn._files import storage
from torchnn._training.members import drawing, keep_noise, kept_noise
from torchnn.model import Model
from torchnn.optimizers import TorchOptimizer
from torchnn.optimizers._base import SlotOptimizer
from torchnn.sweeps._space import Settings

OWN = ("seed", "batch_size", "epochs")  # settings of the sweep, not of a model or an optimizer
MOST_SEED = 2**64 - 1
NOISE = "/optimizer/noise/"  # what names of tensors begin with: it goes when the optimizer does


@dataclass(frozen=True)
class Maker:
    """Makes the models of a sweep.

    Attributes:
        build: Returns a model, compiled or not.
        optimizer: For those that are not compiled.
        loss: Likewise.
        metrics: Likewise.
        seed: That of trials whose settings name none.
    """

    build: Callable[..., Any]
    optimizer: Any
    loss: Any
    metrics: Any
    seed: int

    def seed_of(self, settings: Settings) -> int:
        """Returns what a trial's first weights, order of samples and dropout follow from."""
        return int(settings.get("seed", self.seed))

    def make(self, settings: Settings, x: Any = None, weights: bytes | None = None) -> Any:
        """Returns a new model of a trial.

        PyTorch's generator is left as it was.

        Args:
            settings: Those of the trial; those that build takes are its own.
            x: Samples, for the first weights of a model that does not know their shape.
            weights: What pack has told of the model, to go on there.

        Raises:
            TypeError: build returned no model.
            ValueError: A setting that nobody knows, or a model that cannot be trained.
        """
        seed, on_gpus = self.seed_of(settings), list[int]()
        if torch.cuda.is_initialized():
            on_gpus = list(range(torch.cuda.device_count()))
        with drawing, torch.random.fork_rng(on_gpus):
            _seed(seed)
            model = self.build(**{n: v for n, v in settings.items() if self.takes(n)})
            if not isinstance(model, Model):
                raise TypeError(f"build must return a torchnn model, got {type(model).__name__}")
            if not is_built(model):
                if weights is not None:
                    _saving.unpack(model, weights, with_optimizer=False)
                elif x is not None:
                    model.predict_on_batch(x[:1])
            self._compile(model, settings)
            model._order_seed = seed
            keep_noise(model, seed)  # fit would go on drawing there
        if weights is not None:
            _unpack(model, weights)
        return model

    def takes(self, name: str) -> bool:
        """Whether a setting is an argument of build."""
        parameters = signature(self.build).parameters
        if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
            return name in parameters or name not in OWN
        return name in parameters

    def _compile(self, model: Any, settings: Settings) -> None:
        """Compiles a model that is not, and gives its optimizer its settings."""
        names = ("optimizer", "loss", "metrics")
        given = {name: copy.deepcopy(getattr(self, name)) for name in names}
        if model.optimizer is None:
            if self.loss is None:
                raise ValueError(
                    "build returned a model that is not compiled: compile it there, or give Sweep "
                    "a loss and an optimizer"
                )
            model.compile(**given)
        elif any(value is not None for value in given.values()):
            raise ValueError(
                "build returned a model that is compiled: so give Sweep no optimizer, loss or "
                "metrics"
            )
        own = {n: v for n, v in settings.items() if n not in OWN and not self.takes(n)}
        if not own:
            return
        known = _settings_of(model)
        for name in own:
            if name not in known:
                raise ValueError(self._unknown(name, known))
        if isinstance(model.optimizer, SlotOptimizer):  # checks them, and makes their slots
            changed = type(model.optimizer).from_config(model.optimizer.get_config() | own)
            model.compile(changed, **model._recipe.given)
            return
        for name, value in own.items():
            if name == "learning_rate":
                model.optimizer.learning_rate = value
            else:
                for group in model.optimizer.optimizer.param_groups:
                    group[name] = value

    def _unknown(self, name: str, known: Iterable[str]) -> str:
        build = [n for n in signature(self.build).parameters if n not in OWN]
        lists = {"build takes": build, "the optimizer has": known, "a sweep has": OWN}
        told = "; ".join(f"{who} {', '.join(names) or 'none'}" for who, names in lists.items())
        return f"unknown setting {name!r}: {told}"


def _seed(seed: int) -> None:
    """Seeds PyTorch's generators, without torch.manual_seed's search for other devices, which takes
    as long as building a small model."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    elif torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)  # as soon as build uses them


def pack(model: Any, goes_on: bool) -> bytes:
    """Returns the weights of a model that was made, and if it goes on, how far it has come."""
    data = _saving.pack(model, with_optimizer=goes_on)
    noise = kept_noise(model, model._order_seed) if goes_on else None
    if noise is None:
        return data
    tensors, contents = storage.unpack(data, "the weights")
    tensors |= {f"{NOISE}{number}": state for number, state in enumerate(noise)}
    return storage.pack(tensors, contents)


def _unpack(model: Any, data: bytes) -> None:
    """Gives a model what pack has told of it."""
    _saving.unpack(model, data)
    if NOISE.encode() not in data:
        return
    tensors, _ = storage.unpack(data, "the weights")
    noise = [tensors[name] for name in sorted(tensors) if name.startswith(NOISE)]
    keep_noise(model, model._order_seed, noise)


def _settings_of(model: Any) -> list[str]:
    """The names of what can be set of a model's optimizer."""
    optimizer = model.optimizer
    if isinstance(optimizer, SlotOptimizer):
        return [name for name in optimizer.get_config() if name != "name"]
    if isinstance(optimizer, TorchOptimizer):
        build_optimizer(model, model._recipe)  # before, it is but a function
        groups = optimizer.optimizer.param_groups
        return ["learning_rate", *(n for n in groups[0] if n not in ("params", "lr"))]
    return ["learning_rate"]


def check_seed(seed: Any) -> int:
    """Returns a seed that PyTorch's generators take."""
    if _checks.non_negative_int("seed", seed) > MOST_SEED:
        raise ValueError(f"seed must be an integer from 0 to 2**64 - 1, got {seed}")
    return int(seed)


def check_common(settings: Settings) -> None:
    """Raises TypeError or ValueError for a seed, a batch size or epochs that there cannot be."""
    if "seed" in settings:
        check_seed(settings["seed"])
    for name in ("batch_size", "epochs"):
        if name in settings:
            _checks.positive_int(name, settings[name])
