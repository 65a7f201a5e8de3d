"""What a module is before it is trained: whether it is built, what it eats, what it returns."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import _checks
from torchnn._engine.evaluating import evaluating
from torchnn._engine.parts import Parts, returned, taken
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Form, Samples
from torchnn._engine.several import SeveralLosses, selected
from torchnn.layers._values import mode as mode  # for the rooms above
from torchnn.losses import Loss
from torchnn.metrics import Metric

DICTS = {dict, OrderedDict}
NOTHING: dict[str, Any] = {}  # the copy of all that are empty, as most are
Call = Callable[[nn.Module, Any], Any]


def is_built(model: nn.Module) -> bool:
    """Whether all parameters and buffers have their shapes."""
    return not any(map(is_lazy, (*model.parameters(), *model.buffers())))


def form(model: nn.Module, input_shape: tuple[int, ...] | None = None) -> Form:
    """Returns what a model eats.

    Args:
        model: Its parameters tell the device and the dtype, its first layer the features.
        input_shape: The exact shape of a sample, or None.
    """
    parameter: Any = next(model.parameters(), None)
    if parameter is None:
        parameter = torch.empty(0, device="cpu")
    if input_shape is not None:
        return Form(parameter.device, parameter.dtype, input_shape, exact=True)
    first = model
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    features = getattr(first, "in_features", None)  # 0 in a LazyLinear that is not built
    return Form(parameter.device, parameter.dtype, (features,) if features else ())


def check_device(form: Form) -> None:
    """Raises ValueError if a model is where tensors have no numbers."""
    if form.device.type == "meta":
        raise ValueError(
            "the model is on the meta device, where parameters have shapes and no numbers: call "
            'model.to_empty(device="cpu"), and give it weights, by load_weights, say'
        )


def prepare(
    model: nn.Module, recipe: Recipe | None, *samples: Samples, call: Call | None = None
) -> tuple[int, ...]:
    """Builds the model for samples like these, after a rehearsal on the first of each.

    The rehearsal runs model, loss and metrics. If it fails, what it built is unbuilt again: nothing
    has changed.

    Args:
        model: The model.
        recipe: How it is trained, or None.
        samples: What it is to take, all on one device.
        call: What calls the model, by whom others than its caller are told of it; None for nobody.

    Returns:
        The axes of one output.

    Raises:
        ValueError: The samples do not fit the model, or y does not fit its output.
        TypeError: The model does not return a tensor.
    """
    device = samples[0].x.device
    with nullcontext() if is_built(model) else _undone_by_errors(model, device):
        for each in samples:
            output = run_once(model, each.x[:1], call)
            if recipe is not None:
                _rehearse(recipe, each, output)
    return tuple(output.shape[1:])


@contextmanager
def able_to_learn(model: nn.Module) -> Iterator[None]:
    """Leaves inference mode, in which no tensor is made that could learn, for no_grad.

    Raises:
        ValueError: The model itself was made in inference mode.
    """
    if _made_in_inference_mode(model):
        raise ValueError(
            "the model was made in inference mode, where parameters cannot learn: make it outside "
            "of torch.inference_mode, and let it load this one's state dict"
        )
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


def _made_in_inference_mode(model: nn.Module) -> bool:
    with torch._C.DisableTorchFunctionSubclass():  # a parameter that is not built refuses to tell
        return not all(map(_counts_versions, model.parameters()))


def _counts_versions(tensor: Tensor) -> bool:
    """False for what inference mode has made, also if its data has been replaced since."""
    try:
        return tensor._version >= 0
    except RuntimeError:
        return False


@contextmanager
def _undone_by_errors(model: nn.Module, device: torch.device) -> Iterator[None]:
    """After an error, makes modules and their parameters what they were, and random numbers too.

    A copy to rehearse on would be simpler, but not everything can be copied: PyTorch's own lazy
    buffers cannot, and no layer that computes its weight from others.
    """
    modules, tensors = list(model.modules()), [*model.parameters(), *model.buffers()]
    lazy = [(tensor, tensor.data) for tensor in tensors if is_lazy(tensor)]
    kinds: list[tuple[Any, type]] = [(each, type(each)) for each in (*modules, *tensors)]
    dicts = [pair for module in modules for pair in _dicts(module)]
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        with torch.inference_mode(_made_in_inference_mode(model)):  # whichever it is in now
            yield
    except BaseException:
        for tensor, data in lazy:
            tensor.data = data
        for each, kind in kinds:
            each.__class__ = kind
        for own, held in dicts:
            own.clear()
            own.update(held)
        for generator, state in states:
            generator.set_state(state)
        raise


def _dicts(module: nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """A module's attributes and all dicts among them, its parameters say, each with a copy."""
    own = vars(module)
    return [
        (each, dict(each) if each else NOTHING)
        for each in (own, *own.values())
        if type(each) in DICTS
    ]


def run_once(model: nn.Module, x: Tensor, call: Call | None = None) -> Tensor:
    """Returns the model's output in evaluation mode, checked to be one row a sample."""
    with evaluating(model) as evaluated, torch.no_grad():
        given = taken(x)
        output: Any = returned(call(evaluated, given) if call else evaluated(given))
    if not isinstance(output, (Tensor, Parts)):
        raise TypeError(f"the model must return a tensor, got {type(output).__name__}")
    for each in output.tensors if isinstance(output, Parts) else [output]:
        if each.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the model must return one row a sample, got shape {tuple(each.shape)} "
                f"for x of shape {tuple(x.shape)}"
            )
    return output  # type: ignore[return-value]


def check_labels(loss: Loss, axes: tuple[int, ...], samples: Samples) -> None:
    """Raises ValueError if y holds class numbers that outputs of these axes have no place for."""
    if not loss.takes_labels or samples.y is None:
        return
    try:
        loss.check_labels(samples.y, axes)
    except ValueError as error:
        raise ValueError(f"y{samples.origin} does not suit the loss: {error}") from error


def axes_of(samples: Samples) -> tuple[Any, ...]:
    """Returns the axes of a row of x, of y and of the weights: what a rehearsal goes by."""
    each = samples.x, samples.y, samples.weight
    return tuple(None if tensor is None else tuple(tensor.shape[1:]) for tensor in each)


class Rehearsed:
    """Looks at batches as a loader gives them: at their labels, and, by a rehearsal, at those whose
    axes are not those of batches before.

    Args:
        model: The model, built.
        recipe: How it is trained.
        samples: What has been rehearsed.
        axes: Those of an output for them.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, samples: Samples, axes: tuple[int, ...]
    ) -> None:
        self._model, self._recipe = model, recipe
        self._outputs = {axes_of(samples): axes}

    def __call__(self, samples: Samples) -> None:
        """Raises what training on the batch would raise, and ValueError for labels without an
        output."""
        given = axes_of(samples)
        if given in self._outputs:
            check_labels(self._recipe.loss, self._outputs[given], samples)
        else:
            self._outputs[given] = prepare(self._model, self._recipe, samples)


def _rehearse(recipe: Recipe, samples: Samples, output: Tensor) -> None:
    """Computes loss and metrics of one sample: what does not fit is found out before any work."""
    if isinstance(output, Parts) and not isinstance(recipe.loss, SeveralLosses):
        raise TypeError(
            f"the model must return a tensor, got {len(output.tensors)}: for several outputs, "
            "compile needs a loss for each, in a list or a dict"
        )
    check_labels(recipe.loss, tuple(output.shape[1:]), samples)
    first = samples[:1]
    try:
        recipe.loss(first.y, output, first.weight)
    except _checks.ShapeError as error:
        of_y, of_output = _shape(first.y), _shape(output)
        if of_y == of_output:
            raise
        raise ValueError(
            f"y{first.origin} has shape {of_y}, which does not fit the model's output of shape "
            f"{of_output}{error.hint}"
        ) from error
    for metric in recipe.metrics:
        weight = first.weight if metric.is_weighted else None
        _rehearse_metric(metric, first.origin, *selected(metric, first.y, output, weight))


def _rehearse_metric(metric: Metric, origin: str, y: Any, output: Any, weight: Any) -> None:
    """Computes a metric of one sample, which the loss has taken."""
    try:
        metric.rehearse(y, output, weight)
    except _checks.ShapeError as error:
        if _shape(y) == _shape(output):
            raise
        raise ValueError(
            f"metric {metric.name} does not take y{origin} of shape {_shape(y)} with an output of "
            f"shape {_shape(output)}, which the loss takes{error.hint}"
        ) from error


def _shape(tensor: Any) -> str:
    """The shape of any number of rows."""
    axes = ", ".join(map(str, tensor.shape[1:]))
    return f"(N, {axes})" if axes else "(N,)"
