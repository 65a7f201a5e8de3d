"""The engine that trains any model: PyTorch's autograd, one step after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchnn import activations, constraints, regularizers
from torchnn._engine.evaluating import evaluating
from torchnn._engine.parts import cat, returned, taken
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run
from torchnn.layers import Activation, Dense, Layer
from torchnn.layers._base import is_regulated
from torchnn.layers._graph import has_graph
from torchnn.losses import Loss

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def never() -> bool:
    """Nobody says stop."""
    return False


class Result(NamedTuple):
    """What came of a run.

    Attributes:
        losses: The loss of each batch, measured before the batch changed the weights. Fewer than
            the run has if somebody said stop.
        predictions: The run's predictions row by row, or None if no metric needs them.
    """

    losses: Tensor
    predictions: Tensor | None


class AutogradEngine:
    """Trains any model.

    Args:
        model: The model, built.
        recipe: How to train it; without one, the engine only predicts.

    Attributes:
        steps_done: Batches trained or tested so far.
    """

    description = "autograd (PyTorch, one step after the other)"
    is_queued = False  # wherever it works, most of the time goes into queueing

    def __init__(self, model: nn.Module, recipe: Recipe | None) -> None:
        self.steps_done = 0
        self._model = model
        if recipe is not None:
            self._optimizer = recipe.optimizer
            self._keeps_predictions = bool(recipe.metrics)
            self._target = recipe.loss

    def train(self, run: Run, says_stop: Callable[[], bool] = never) -> Result:
        """Takes one step for each batch of the run, until somebody says stop after one."""
        with torch.enable_grad():
            return self._each(self._model, run, self._step, says_stop)

    def test(self, run: Run) -> Result:
        """Measures each batch of the run, and changes nothing."""
        with evaluating(self._model) as model, torch.no_grad():
            return self._each(model, run, self._measure)

    def predict(self, run: Run) -> Tensor:
        """Returns the model's output for the run, row by row."""
        outputs = []
        with evaluating(self._model) as model, torch.no_grad():
            for x, _, _ in run:
                outputs.append(returned(model(taken(x))))
                self.steps_done += 1
        return cat(outputs)

    def _each(
        self,
        model: nn.Module,
        run: Run,
        function: Callable[..., tuple[Tensor, Tensor]],
        says_stop: Callable[[], bool] = never,
    ) -> Result:
        """Calls function on each batch."""
        self._forward, self._loss, self._finish = _from_logits(model, self._target)
        self._is_regulated = is_regulated(model)
        self._regularized = regularizers.of_weights(model) if self._is_regulated else []
        self._constrained = constraints.of_weights(model) if self._is_regulated else []
        losses, outputs = [], []
        for x, y, weight in run:
            loss, output = function(x, y, weight)
            losses.append(loss.detach())
            if self._keeps_predictions:
                outputs.append(output.detach())
            self.steps_done += 1
            if says_stop():
                break
        predictions = self._finish(cat(outputs)) if outputs else None
        return Result(torch.stack(losses), predictions)

    def _step(self, x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step of gradient descent; the loss and the output are those before it."""
        self._optimizer.zero_grad()
        loss, output = self._measure(x, y, weight)
        if loss.requires_grad:
            loss.backward()
        else:
            _check_frozen(self._model)
        self._optimizer.step()
        if self._constrained:
            constraints.apply(self._constrained)
        return loss, output

    def _measure(self, x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._is_regulated:
            return self._measure_with_penalties(x, y, weight)
        output = returned(self._forward(taken(x)))
        return self._loss(y, output, weight), output

    def _measure_with_penalties(
        self, x: Tensor, y: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with regularizers.watched() as penalties:
            output = returned(self._forward(taken(x)))
        loss = self._loss(y, output, weight)
        return loss + sum(penalties) + regularizers.total(self._regularized), output


def _check_frozen(model: nn.Module) -> None:
    """Raises ValueError if a model whose loss has no gradient is to be trained nevertheless."""
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "the loss has no gradient, so nothing would be trained: neither the model nor the loss "
            "may detach what it computes, use no_grad, or compute with NumPy; nor may it be of "
            "whole numbers alone, or all that it depends on be frozen"
        )


def has_hooks(module: nn.Module) -> bool:
    """Whether something watches what goes into or out of the module itself."""
    return any(getattr(module, hooks) for hooks in HOOKS)


def has_own_forward(module: nn.Module) -> bool:
    """Whether the module itself, not its class, says what it computes."""
    return "forward" in vars(module)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an Activation, or one of the layers that are nothing else."""
    return isinstance(module, Activation) and type(module).forward is Activation.forward


def _has_penalty(module: nn.Module) -> bool:
    return isinstance(module, Layer) and module.activity_regularizer is not None


def logits(module: nn.Module, activation: str) -> Callable[[Tensor], Tensor] | None:
    """Returns the module up to its final activation, as a function, or None.

    None means that it does not end in that activation, or that a hook, a forward of its own or a
    penalty watches the output, which must then be computed as it stands.
    """
    if has_hooks(module) or has_own_forward(module) or _has_penalty(module):
        return None
    if activations.name_of(module) == activation:
        return lambda x: x
    graph: Any = module
    head = graph._head if has_graph(graph) else None
    if head is not None:
        final = logits(head, activation)
        return None if final is None else partial(graph._with_head, final)
    if isinstance(module, nn.Sequential):
        return _sequence_logits(module, activation)
    if type(module) is Dense or is_activation(module):
        layer: Any = module
        if activations.name_of(layer.activation) == activation:
            return layer.logits
    return None


def _sequence_logits(sequence: nn.Sequential, activation: str) -> Callable[[Tensor], Tensor] | None:
    if not len(sequence) or type(sequence).forward is not nn.Sequential.forward:
        return None
    *body, head = sequence
    final = logits(head, activation)
    if final is None:
        return None

    def forward(x: Tensor) -> Tensor:
        for layer in body:
            x = layer(x)
        return final(x)

    return forward


def _from_logits(
    model: nn.Module, loss: Loss
) -> tuple[Callable[[Tensor], Tensor], Loss, Callable[[Tensor], Tensor]]:
    """Returns the model and its loss, and what makes predictions of the model's output.

    A loss takes the output activation into itself where it can: cross-entropy of a sigmoid is
    computed from the sigmoid's input z, where the gradient is sigmoid(z) - y, which does not vanish
    where the sigmoid saturates.
    """
    if loss.activation and not loss.from_logits:
        forward = logits(model, loss.activation)
        if forward is not None:
            return forward, loss.on_logits(), activations.FUNCTIONS[loss.activation]
    return model, loss, lambda output: output
