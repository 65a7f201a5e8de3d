"""Engines: what trains a run of batches in one call, the choice of one, and when to choose again.

fit, evaluate, predict and the callbacks know an engine by three methods and a counter; how many
steps it takes at once, and in which language, is its own affair.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from torchnn import _warnings
from torchnn._engine import building, ranks
from torchnn._engine.ahead import Ahead
from torchnn._engine.autograd import AutogradEngine, Result, never
from torchnn._engine.fused import FusedEngine
from torchnn._engine.plan import NotFusedError, Plan, plan
from torchnn._engine.plan import describe as describe_fused
from torchnn._engine.ranks import Ranks, RanksEngine
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn._engine.watch import Watch
from torchnn.callbacks._base import HOOKS as CALLS
from torchnn.callbacks._base import CallbackList

Chosen = AutogradEngine | FusedEngine


def choose(
    model: nn.Module,
    recipe: Recipe | None,
    shape: tuple[int, ...] | None = None,
    together: Ranks | None = None,
) -> Chosen:
    """Returns the engine for a model: the one place where that is decided.

    Args:
        model: The model.
        recipe: How to train it; without one, the engine only predicts.
        shape: The axes of a sample; None if they are not known yet.
        together: The processes that train it together, or None.

    Raises:
        ValueError: compile asked for the fused engine, and the model is not one for it.
    """
    if together is not None:
        if recipe is not None and recipe.engine == "fused":
            raise ValueError(f'engine="fused" cannot train this model, since {_together()}')
        return RanksEngine(model, recipe, together)
    return _engine(_planned(model, recipe, shape), model, recipe)


def _engine(network: Plan | None, model: nn.Module, recipe: Recipe | None) -> Chosen:
    return AutogradEngine(model, recipe) if network is None else FusedEngine(network, recipe)


def _planned(model: nn.Module, recipe: Recipe | None, shape: Any) -> Plan | None:
    """The plan of a model that is for the fused engine, else None."""
    if recipe is not None and recipe.engine == "autograd":
        return None
    try:
        return plan(model, recipe, shape)
    except NotFusedError as reason:
        if recipe is not None and recipe.engine == "fused":
            raise ValueError(f'engine="fused" cannot train this model: {reason}') from None
        return None


def describe(model: nn.Module, recipe: Recipe | None, shape: tuple[int, ...] | None = None) -> str:
    """Returns one line on the engine that choose would return, and why it is not the fused one."""
    if recipe is None:
        return "none before compile"
    if recipe.engine == "autograd":
        return f"{AutogradEngine.description}, as compile asked for"
    if ranks.count() > 1:
        return f"{AutogradEngine.description}, since {_together()}"
    try:
        return describe_fused(plan(model, recipe, shape))
    except NotFusedError as reason:
        return f"{AutogradEngine.description}, since {reason}"


def _together() -> str:
    return f"{ranks.count()} processes train together"


# Keras's models train by what trainable was when they were compiled; here it counts as it is.
_FROZEN = (
    ". Something has set trainable=False: set trainable=True before train_on_batch or fit, and "
    "False again after it, if another model must not train these layers"
)


def build_optimizer(model: nn.Module, recipe: Recipe) -> None:
    """Hands the parameters to the optimizer.

    Raises:
        ValueError: All of them have been frozen since compile, or there are none.
    """
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        nothing = "the model has nothing to train: no parameter requires a gradient"
        if not parameters or not recipe.is_frozen:
            raise ValueError(nothing + (_FROZEN if parameters else ""))
        _warnings.warn(f"{nothing}, as when it was compiled")
    recipe.optimizer.build(parameters, recipe.owner)


class Engine:
    """The engine for a model, chosen again before any call that finds the model changed.

    Args:
        model: The model, built.
        recipe: How to train it; without one, the engine only predicts.
        first: Samples like those to come.
        callbacks: The user's. If none has been called, nothing has changed the model.
        chosen: From remember or recall; None to choose.
        together: The processes that train it together, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe | None,
        first: Samples,
        callbacks: CallbackList,
        chosen: Chosen | None = None,
        together: Ranks | None = None,
    ) -> None:
        self._model, self._recipe = model, recipe  # type: nn.Module, Any
        self._shape, self._steps_before = tuple(first.x.shape[1:]), 0
        self._device = first.x.device
        # Of several ranks, none may choose another engine than the others.
        may_change = together is None and callbacks.listens(*CALLS)
        self._watch = Watch(model, recipe) if may_change else None
        self._chosen = chosen or choose(model, recipe, self._shape, together)
        self._callbacks, self._calls = callbacks, callbacks.calls
        self._has_optimizer = False

    @property
    def steps_done(self) -> int:
        """Batches trained or tested so far."""
        return self._steps_before + self._chosen.steps_done

    @property
    def is_queued(self) -> bool:
        """Whether train returns before its work is done."""
        return self._chosen.is_queued

    @property
    def kind(self) -> str:
        """What there is to say of how fast it is, beside the network."""
        return f"{type(self._chosen).__name__} on {self._device}"

    def build_optimizer(self) -> None:
        """Readies the optimizer for the parameters that the model has now."""
        build_optimizer(self._model, self._recipe)
        self._has_optimizer = True

    def train(self, run: Run, says_stop: Callable[[], bool] = never) -> Result:
        """Takes one step for each batch of the run, or queues them; fewer if somebody says stop."""
        self._look(run.samples)
        if not self._has_optimizer:
            self.build_optimizer()
        return self._chosen.train(run, says_stop)

    def most_ahead(self, samples: Samples, others: Sequence[Samples]) -> int:
        """Returns how many whole epochs of the samples it can train ahead, the others being those
        that the model is validated on after each."""
        self._look(samples)
        if not isinstance(self._chosen, FusedEngine):
            return 0
        if not self._has_optimizer:
            self.build_optimizer()
        return self._chosen.most_ahead(samples, others, self._callbacks.model_access)

    def ahead(self, run: Run, others: Sequence[Samples]) -> Ahead:
        """Trains the epochs of a run, no more than most_ahead has said, and knows the state after
        each."""
        chosen: Any = self._chosen
        return chosen.ahead(run, others, self._callbacks.model_access, self._watch)

    def test_ahead(self, run: Run, ahead: Ahead, epochs: list[int]) -> Result:
        """Measures a run of as many epochs as are given here, each by the state after that one."""
        chosen: Any = self._chosen
        result: Result = chosen.test_ahead(run, ahead, epochs)
        return result

    def test(self, run: Run) -> Result:
        """Measures each batch of the run, and changes nothing."""
        self._look(run.samples)
        return self._chosen.test(run)

    def predict(self, run: Run) -> Tensor:
        """Returns the model's output for the run, row by row."""
        self._look(run.samples)
        return self._chosen.predict(run)

    def _look(self, samples: Samples) -> None:
        """Chooses again if the model has changed.

        Raises:
            ValueError: The changed model does not go with the samples.
        """
        watch, calls = self._watch, self._callbacks.calls
        if watch is None or calls == self._calls:
            return
        if not watch.is_untouched():
            _rehearse(self._model, self._recipe, samples)
            chosen, steps = choose(self._model, self._recipe, self._shape), self.steps_done
            self._chosen, self._steps_before, self._has_optimizer = chosen, steps, False
            self._watch = Watch(self._model, self._recipe)
        self._calls = calls


class _Rehearsed(NamedTuple):
    """The plan of a model that has been rehearsed, and what both came of."""

    network: Plan
    recipe: Callable[[], Recipe | None]
    shape: tuple[int, ...]
    watch: Watch


_rehearsed: WeakKeyDictionary[nn.Module, _Rehearsed] = WeakKeyDictionary()


def remember(model: nn.Module, recipe: Recipe | None, shape: tuple[int, ...]) -> Chosen:
    """Returns the engine for a model that has just been rehearsed on samples of this shape, and
    lets recall know of it if it is the fused one."""
    watch = Watch(model, recipe)  # before the plan, should somebody change the model now
    network = _planned(model, recipe, shape)
    if network is not None:
        known: Any = (lambda: None) if recipe is None else ref(recipe)
        _rehearsed[model] = _Rehearsed(network, known, shape, watch)
    return _engine(network, model, recipe)


def recall(model: nn.Module, recipe: Recipe | None, shape: tuple[int, ...]) -> Chosen | None:
    """Returns an engine for a model that has been rehearsed on samples of this shape, if nothing
    has changed since: then the rehearsal would pass again, and the choice be the same."""
    known = _rehearsed.get(model)
    if known is None or known.recipe() is not recipe or known.shape != shape:
        return None
    return FusedEngine(known.network, recipe) if known.watch.is_untouched() else None


def _rehearse(model: nn.Module, recipe: Recipe | None, samples: Samples) -> None:
    """Raises ValueError if a changed model does not go with the samples; builds new layers."""
    form, x = building.form(model), samples.x
    try:
        if (form.dtype, form.device) != (x.dtype, x.device):
            raise ValueError(
                f"its parameters are {form.dtype} on {form.device}, the samples {x.dtype} on "
                f"{x.device}"
            )
        building.prepare(model, None if samples.y is None else recipe, samples)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the model has changed and no longer fits its data: {error}") from error
