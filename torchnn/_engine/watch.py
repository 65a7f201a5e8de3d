"""What decides how a model is trained, and whether any of it has been changed since."""

from itertools import chain
from operator import attrgetter, is_
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import ops
from torchnn._engine.autograd import HOOKS
from torchnn._engine.plan import KNOWN
from torchnn._engine.recipe import Recipe

# Of a module that the kernels stand in for, everything counts; what others have of their own they
# use themselves, whenever they are called.
FAMILIAR = frozenset(KNOWN)
HELD_BY_ALL = ("_modules", "_parameters", *HOOKS)
# What decides which engine may train a parameter, and whether it goes with the samples.
TRAITS = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")
LAYOUT = attrgetter("dtype", "device", "shape")
# What changes nothing: a mode that others turn on and off, and what a metric has counted last.
IGNORED = {"training": None, "labels": None}


class Watch:
    """A model, its loss and its metrics as they are, down to whatever decides how they are trained.

    It reads no numbers, and so takes some microseconds. What is written in place into a tensor
    shows in its version; that matters only where the kernels get something that was made of it
    before.

    Args:
        model: The model.
        recipe: How it is trained; None for one that only predicts.
    """

    def __init__(self, model: nn.Module, recipe: Recipe | None) -> None:
        # A model that is watched for long must not be kept alive by that.
        self._optimizer: Any = (lambda: None) if recipe is None else ref(recipe.optimizer)
        # Told apart by identity, and held, so that nothing new can take the place of any of them.
        self._held: list[dict[str, Any]] = []
        # Told apart by value; of things without one, that is identity, too.
        self._own: list[dict[str, Any]] = []
        if recipe is not None:
            self._own += map(vars, [recipe.loss, *recipe.metrics])
        self._parameters: list[Tensor] = []
        self._buffers: list[Tensor] = []
        modules = [model]
        for module in modules:
            own = vars(module)
            self._held += [own[name] for name in HELD_BY_ALL]
            modules += [child for child in own["_modules"].values() if child is not None]
            self._parameters += [p for p in own["_parameters"].values() if p is not None]
            if type(module) in FAMILIAR:
                self._own.append(own)
                self._held.append(own["_buffers"])
                self._buffers += [b for b in own["_buffers"].values() if b is not None]
        self._modules = [*map(ref, modules)]
        self._others = [ref(module) for module in modules if type(module) not in FAMILIAR]
        self._kinds = {type(module) for module in modules}
        self._then = [*map(dict, self._own)]
        self._things, self._values = self._look()
        self._rest = self._look_at_rest()

    def is_untouched(self, but_rest: bool = False) -> bool:
        """Whether nothing has changed.

        Args:
            but_rest: Whether somebody else looks at the optimizer, and at what parameters are made
                of.
        """
        things, values = self._look()
        return (
            len(things) == len(self._things)
            and all(map(is_, things, self._things))
            and values == self._values
            and all(map(_are_same, self._own, self._then))
            and (but_rest or self._look_at_rest() == self._rest)
        )

    def _look(self) -> tuple[list[Any], list[Any]]:
        things: list[Any] = [*chain.from_iterable(map(dict.values, self._held))]
        things += [type(module()) for module in self._modules]
        things += [kind.forward for kind in self._kinds]
        things += [vars(module()).get("forward") for module in self._others]
        values: list[Any] = [*map(TRAITS, self._parameters), *map(version, self._buffers)]
        return things, values

    def _look_at_rest(self) -> list[Any]:
        optimizer = self._optimizer()
        return [
            optimizer is None or ops.kernel_of(optimizer) is None,
            *(None if is_lazy(p) else (p.is_contiguous(), *LAYOUT(p)) for p in self._parameters),
        ]


def _are_same(own: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether a thing has what it had."""
    try:
        return own == then or own | IGNORED == then | IGNORED
    except (RuntimeError, TypeError, ValueError):  # a tensor or an array in the place of another
        return False


def version(tensor: Tensor | None) -> int:
    """Returns a number that grows whenever PyTorch writes into the tensor's memory."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version
