"""Gradients of what has been computed."""

from collections.abc import Iterator
from functools import partial
from itertools import compress
from typing import Any

import torch

from torchnn import _array
from torchnn.layers._values import leaves, mapped
from torchnn.layers._variables import Variable
from torchnn.tf._tensor import as_tensor


class GradientTape:
    """Tells gradients of what is computed within it, with respect to variables and watched tensors.

        with tf.GradientTape() as tape:
            cost = (w * x - y) ** 2
        w.assign_sub(0.01 * tape.gradient(cost, w))

    Within it, layers and models that are called on arrays return tensors.

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
        self._token = _array.recorder.set(as_tensor)
        return self

    def __exit__(self, *error: Any) -> None:
        _array.recorder.reset(self._token)

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
        """Returns d target / d source for each source, in the structure of sources.

        Args:
            target: A tensor; of one with axes, or of several in a list, the sum is derived.
            sources: Variables and watched tensors: one, such as a model's trainable_variables a
                list of them, or lists, tuples and dicts that hold them.
            output_gradients: Factors of the target's entries, in its shape, or None.

        Returns:
            Tensors of the sources' shapes; None for a source that target does not depend on.

        Raises:
            TypeError: A source is no tensor.
            ValueError: The target depends on nothing that is watched.
            RuntimeError: It has been called before, and the tape is not persistent.
        """
        if self._used and not self.persistent:
            raise RuntimeError(
                "gradient can be called once, unless it is GradientTape(persistent=True)"
            )
        targets, sources = _listed(target), _collected(sources)
        wanted = _tensors(sources)
        if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in targets):
            raise ValueError(
                "target depends on no variable and on nothing watched: compute it of them within "
                "the tape, by functions of tf rather than NumPy's"
            )
        self._used = True
        watched = [_weight(each) for each in wanted if each.requires_grad]
        found = self._derived(targets, watched, _factors(target, output_gradients))
        by_weight = dict(zip(map(id, watched), found, strict=True))
        return mapped(sources, partial(_of_source, by_weight))

    def _derived(self, targets: list[Any], watched: list[Any], factors: list[Any]) -> list[Any]:
        if not watched:
            return []
        depends = [each.requires_grad for each in targets]
        # Of another tape, or of this one: its gradient may be wanted.
        is_within = _array.recorder.get() is not None
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


def _of_source(by_weight: dict[int, Any], source: Any) -> Any:
    """The gradient of its weight, in the shape of the source; of what holds sources, itself."""
    if not isinstance(source, torch.Tensor):
        return source
    gradient = by_weight.get(id(_weight(source)))
    if isinstance(source, Variable) and gradient is not None:
        return source.turned(gradient)
    return gradient


def _factors(target: Any, given: Any) -> list[Any]:
    """The factors of each target's entries."""
    if given is None:
        return list(map(torch.ones_like, _listed(target)))
    return list(map(as_tensor, [given] if isinstance(target, torch.Tensor) else leaves(given)))


def _listed(value: Any) -> list[Any]:
    """The tensors that a value is or holds."""
    return list(leaves(_collected(value)))


def _collected(value: Any) -> Any:
    """What a generator, such as that of a module's parameters, yields; anything else as it is."""
    return list(value) if isinstance(value, Iterator) else value


def _tensors(sources: Any) -> list[Any]:
    """The sources, of which each must be a tensor."""
    found = list(leaves(sources))
    for each in found:
        if not isinstance(each, torch.Tensor):
            raise TypeError(f"sources must be variables and watched tensors, got {each!r}")
    return found
