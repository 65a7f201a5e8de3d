"""Gradients of what has been computed."""

from contextvars import ContextVar
from itertools import compress
from typing import Any

import torch

from torchnn.layers._variables import Variable
from torchnn.tf._tensor import as_tensor

_depth: ContextVar[int] = ContextVar("depth", default=0)


class GradientTape:
    """Tells gradients of what is computed within it, with respect to variables and watched tensors.

        with tf.GradientTape() as tape:
            cost = (w * x - y) ** 2
        w.assign_sub(0.01 * tape.gradient(cost, w))

    Args:
        persistent: Whether gradient may be called more than once.
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True):
        if not watch_accessed_variables:
            raise ValueError(
                "watch_accessed_variables must be True: make variables trainable=False"
            )
        self.persistent = persistent
        self._used = False

    def __enter__(self) -> "GradientTape":
        self._token = _depth.set(_depth.get() + 1)
        return self

    def __exit__(self, *error: Any) -> None:
        _depth.reset(self._token)

    def watch(self, tensor: Any) -> None:
        """Lets gradients be told with respect to a tensor that is no variable, or to several."""
        for each in _listed(tensor):
            if not isinstance(each, torch.Tensor) or not each.is_floating_point():
                raise TypeError(
                    f"watch takes tensors of floats, such as tf.constant(3.0), got {each!r}"
                )
            if not each.requires_grad:
                each.requires_grad_()

    def gradient(self, target: Any, sources: Any, output_gradients: Any = None) -> Any:
        """Returns d target / d source for each source: like sources, one tensor or a list.

        Args:
            target: A tensor; of one with axes, or of several in a list, the sum is derived.
            sources: Variables, watched tensors, or a model's trainable_variables.
            output_gradients: Factors of the target's entries, in its shape, or None.

        Returns:
            Tensors of the sources' shapes; None for a source that target does not depend on.

        Raises:
            ValueError: The target depends on nothing that is watched.
            RuntimeError: It has been called before, and the tape is not persistent.
        """
        if self._used and not self.persistent:
            raise RuntimeError(
                "gradient can be called once, unless it is GradientTape(persistent=True)"
            )
        targets, wanted = _listed(target), _listed(sources)
        if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in targets):
            raise ValueError(
                "target depends on no variable and on nothing watched. A layer or model that is "
                "called on an array keeps no gradient: call it on tf.constant(x)"
            )
        self._used = True
        watched = [_weight(each) for each in wanted if each.requires_grad]
        found = self._derived(targets, watched, _factors(target, output_gradients))
        by_weight = dict(zip(map(id, watched), found, strict=True))
        gradients = [_of_source(each, by_weight.get(id(_weight(each)))) for each in wanted]
        return gradients[0] if isinstance(sources, torch.Tensor) else gradients

    def _derived(self, targets: list[Any], watched: list[Any], factors: list[Any]) -> list[Any]:
        if not watched:
            return []
        depends = [each.requires_grad for each in targets]
        is_within = _depth.get() > 0  # of another tape, or of this one: its gradient may be wanted
        gradients = torch.autograd.grad(
            list(compress(targets, depends)),
            watched,
            list(compress(factors, depends)),
            retain_graph=self.persistent or is_within,
            create_graph=is_within,
            allow_unused=True,
        )
        return [None if gradient is None else as_tensor(gradient) for gradient in gradients]


def _weight(source: Any) -> Any:
    """What a target depends on: of a model's variables, the weights that they show."""
    return source.weight if isinstance(source, Variable) else source


def _of_source(source: Any, gradient: Any) -> Any:
    """The gradient of its weight, in the shape of the source."""
    if isinstance(source, Variable) and gradient is not None:
        return source.turned(gradient)
    return gradient


def _factors(target: Any, given: Any) -> list[Any]:
    """The factors of each target's entries."""
    if given is None:
        return list(map(torch.ones_like, _listed(target)))
    return list(map(as_tensor, [given] if isinstance(target, torch.Tensor) else given))


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) else list(value)
