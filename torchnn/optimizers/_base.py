"""What every optimizer does, and what those with update rules of our own have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks
from torchnn._config import Configured, plain
from torchnn.layers._variables import Variable
from torchnn.ops import Kernel
from torchnn.optimizers._averages import AVERAGES, SETTINGS, Averaging
from torchnn.optimizers._common import LIMITS, MISSING, Limit, Missing, Rate, clipped, refuse

LearningRate = float | Callable[[int], float]


@dataclass(frozen=True)
class Place:
    """How far fits have come, so that the next one can go on there.

    Attributes:
        epochs: Those that have been trained.
        batches: Those of the next epoch that have been, too, if it was interrupted.
        feed: What these were made of: batch size and the like.
        seed: What their order followed from, or None.
        sums: Of their losses and metrics; None if nobody knows.
    """

    epochs: int = 0
    batches: int = 0
    feed: tuple[int, ...] | None = None
    seed: int | None = None
    sums: dict[str, Any] | None = None

    def after(self, batches: int, steps: int | None = None) -> "Place":
        """Returns the place after so many batches more, of epochs of so many steps, or of one."""
        epochs, batches = (
            divmod(self.batches + batches, steps) if steps else (0, self.batches + batches)
        )
        return Place(self.epochs + epochs, batches, self.feed, self.seed)


class Optimizer(Configured, ABC):
    """Changes parameters along their gradients.

    Attributes:
        iterations: Steps taken so far.
        place: The epochs that fits have trained with it, and the place in one that was interrupted.
        parameters: The tensors given to build.
        learning_rate: A number, or a schedule: a function from the number of steps taken to one.
            It can be assigned at any time.
        use_ema: Whether moving averages of the weights are kept.
    """

    learning_rate: Any
    use_ema = False
    lr = Missing(MISSING["lr"])

    def __init__(self) -> None:
        self.iterations = 0
        self.place = Place()
        self.parameters: list[Tensor] = []
        self._owner: object = None

    def build(self, parameters: Iterable[Tensor], owner: object = None) -> None:
        """Takes charge of parameters, before the first step.

        It keeps the state of those that it has had before, and moves it to the device and dtype
        that they have now; that of new ones starts anew.

        Args:
            parameters: What to change: parameters, or a model's trainable_variables.
            owner: Stands for the model. If the same one brings new parameters in place of all that
                it had, each of the same shape, as `load_state_dict(assign=True)` makes them, these
                take over the state.

        Raises:
            ValueError: The optimizer has trained other parameters, and none of these.
        """
        parameters = [_of_weight(None, parameter)[1] for parameter in parameters]
        had = set(map(id, self.parameters))
        if had and self.iterations and had.isdisjoint(map(id, parameters)):
            if owner is None or owner is not self._owner or not self._has_shapes_of(parameters):
                raise ValueError(
                    f"this {type(self).__name__} has already trained other parameters: "
                    "make a new one for each model"
                )
            self._take_in_place(parameters)
        self._build(parameters)
        self.parameters, self._owner = parameters, owner

    def _has_shapes_of(self, parameters: list[Tensor]) -> bool:
        return [p.shape for p in self.parameters] == [p.shape for p in parameters]

    def _take_in_place(self, parameters: list[Tensor]) -> None:
        """Lets parameters take the places, and so the state, of those that are here."""
        self.parameters = parameters

    @abstractmethod
    def _build(self, parameters: list[Tensor]) -> None:
        """Makes what has to be remembered of parameters that are not in self.parameters yet."""

    @abstractmethod
    def step(self) -> None:
        """Changes every parameter that has a gradient."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns what training has changed, for load_state_dict."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state_dict."""

    def current_learning_rate(self) -> float:
        """Returns the learning rate of the next step."""
        rate = self.learning_rate
        return float(rate(self.iterations) if callable(rate) else rate)

    def apply_gradients(self, grads_and_variables: Iterable[tuple[Any, Tensor]]) -> int:
        """Takes a step along gradients that are given, and leaves those in .grad alone.

        Args:
            grads_and_variables: Pairs of a gradient, a tensor or an array, or None for none, and
                its parameter, or one of a model's trainable_variables. The first call takes charge
                of the parameters, if build has not been called.

        Returns:
            The number of steps taken so far.

        Raises:
            ValueError: No variable has a gradient, one has another shape than its variable, or a
                parameter is not one of those that build was given; nothing has changed then.
        """
        pairs = [_of_weight(grad, variable) for grad, variable in grads_and_variables]
        if all(grad is None for grad, _ in pairs):
            raise ValueError(
                f"grads_and_variables must hold a gradient at least, got none for {len(pairs)} "
                "variables: the loss does not depend on them, or the tape has not watched it"
            )
        if not self.parameters:
            self.build([variable for _, variable in pairs])
        if not {id(variable) for _, variable in pairs} <= set(map(id, self.parameters)):
            raise ValueError("each variable must be one of the parameters that build was given")
        before = [parameter.grad for parameter in self.parameters]
        self.zero_grad()
        try:
            for grad, variable in pairs:
                variable.grad = grad
            self.step()
        finally:
            for parameter, grad in zip(self.parameters, before, strict=True):
                parameter.grad = grad
        return self.iterations

    def apply(
        self, grads: Iterable[Any], trainable_variables: Iterable[Tensor] | None = None
    ) -> None:
        """Takes a step along gradients that are given, as apply_gradients does.

        Args:
            grads: One for each variable, or None for none.
            trainable_variables: The variables; those that build was given if None.

        Raises:
            ValueError: Their numbers differ, or one is not of those that build was given.
        """
        given = self.parameters if trainable_variables is None else [*trainable_variables]
        grads = [*grads]
        if len(grads) != len(given):
            raise ValueError(f"grads must hold {len(given)} gradients, got {len(grads)}")
        self.apply_gradients(zip(grads, given, strict=True))

    def finalize_variable_values(self, var_list: Iterable[Tensor]) -> None:
        """Gives weights the values that they are to have after training: those that they have."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learning_rate={self.learning_rate!r})"


def _of_weight(grad: Any, variable: Tensor) -> tuple[Tensor | None, Tensor]:
    """A gradient and its parameter, which a model's variable shows in Keras's shape.

    Raises:
        ValueError: The gradient has another shape than the variable.
    """
    weight = variable.weight if isinstance(variable, Variable) else variable
    if grad is None:
        return None, weight
    if not isinstance(grad, Tensor):
        grad = _checks.tensor("each gradient", grad).to(weight)
    if grad.shape != variable.shape:
        of = f"of {variable.path} " if isinstance(variable, Variable) else ""
        raise ValueError(
            f"the gradient {of}must have the variable's shape, {tuple(variable.shape)}, "
            f"got {tuple(grad.shape)}"
        )
    return variable.turned(grad) if isinstance(variable, Variable) else grad, weight


class SlotOptimizer(Averaging, Optimizer):
    """An update rule of ours, with what it remembers of its parameters in slots.

    A rule that native training knows has a method `kernel`, which returns the ops.Kernel of its
    present settings, or None. Its slots are those of the kernel, in that order.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        slots: The slots' names.
        clipnorm: Each gradient g becomes g clipnorm / max(|g|, clipnorm). None for no limit.
        clipvalue: Each element of a gradient is moved into [-clipvalue, clipvalue].
        global_clipnorm: As clipnorm, with the norm of all gradients together. Of these three, one
            at a time; each can be assigned at any time.
        name: What the optimizer is called; the name of its class if None.

    Attributes:
        slots: From each name to a list of tensors, one per parameter; empty lists until built.
        initial_values: From the name of a slot to what it begins with, where that is not 0.
    """

    clipnorm, clipvalue, global_clipnorm = Limit(), Limit(), Limit()
    limit: tuple[str, float] | None = None
    initial_values: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: float | None,
        slots: Iterable[str],
        name: str | None = None,
        **common: Any,
    ):
        super().__init__()
        for limit in LIMITS:
            setattr(self, limit, common.pop(limit, None))
        ema = {name: common.pop(name, usual) for name, usual in SETTINGS.items()}
        refuse(type(self), common)
        self.name = _checks.string("name", type(self).__name__.lower() if name is None else name)
        self.learning_rate = learning_rate
        self.weight_decay = _checks.non_negative_float(
            "weight_decay", 0.0 if weight_decay is None else weight_decay
        )
        self.slots: dict[str, list[Tensor]] = {name: [] for name in slots}
        for setting, value in ema.items():
            setattr(self, setting, value)

    @property
    def learning_rate(self) -> LearningRate:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        if not callable(value) or isinstance(value, type):
            value = Rate(_checks.non_negative_float("learning_rate", value))
        elif not _takes_a_step(value):
            raise TypeError(
                "learning_rate must be a number or a function of the number of steps taken, such "
                f"as lambda step: 0.1 / (step + 1), got {value!r}, which does not take that number"
            )
        self._learning_rate = value

    def _build(self, parameters: list[Tensor]) -> None:
        slots: dict[str, Any] = self.slots
        if self.parameters:  # a state that was loaded before goes by place instead
            before = {id(p): i for i, p in enumerate(self.parameters)}
            places = [before.get(id(p)) for p in parameters]
            slots = {
                name: [None if place is None else tensors[place] for place in places]
                for name, tensors in slots.items()
            }
        self.slots = {
            name: _fitted(tensors, parameters, self._initial(name))
            for name, tensors in slots.items()
        }

    def build(self, parameters: Iterable[Tensor], owner: object = None) -> None:
        super().build(parameters, owner)
        if self.averages_in_model:  # what is trained is the weights
            self.swap_averages()

    def _remember(self, names: Iterable[str]) -> None:
        """Keeps the slots of these names, and drops all others but that of averages."""
        names = dict.fromkeys((*names, *([AVERAGES] if self.use_ema else [])))
        self.slots = {
            name: _fitted(self.slots.get(name, []), self.parameters, self._initial(name))
            for name in names
        }

    def _initial(self, name: str) -> float | None:
        """What a slot begins with; None for the parameters themselves."""
        return None if name == AVERAGES else self.initial_values.get(name, 0.0)

    def step(self) -> None:
        if not self.parameters:
            raise RuntimeError("the optimizer has no parameters: call build(model.parameters())")
        trained = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if trained:
            parameters = [self.parameters[i] for i in trained]
            slots = [
                [tensors[i] for i in trained]
                for name, tensors in self.slots.items()
                if name != AVERAGES
            ]
            learning_rate = self.current_learning_rate()
            with torch.no_grad():
                if self.weight_decay:
                    torch._foreach_mul_(parameters, 1 - self.weight_decay * learning_rate)
                grads: Any = [p.grad for p in parameters]
                if self.limit:
                    grads = clipped(grads, *self.limit)
                self._update(learning_rate, parameters, grads, *slots)
            if self.use_ema:
                self._average()
        self.iterations += 1

    @abstractmethod
    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        """The update rule: changes the tensors of parameters and slots in place."""

    def _kernel(self, name: str, *options: str) -> Kernel | None:
        """The kernel of that name and these options; None if there are averages to be kept."""
        if self.use_ema:
            return None
        limits = {LIMITS[self.limit[0]]: self.limit[1]} if self.limit else {}
        own = {each: getattr(self, each) for each in (*options, "weight_decay")}
        return Kernel(name, own | limits)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an optimizer like this one when it was new."""
        own = signature(type(self)).parameters.values()
        names = [each.name for each in own if each.kind is not Parameter.VAR_KEYWORD]
        return {name: plain(getattr(self, name)) for name in (*names, *LIMITS, *SETTINGS, "name")}

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of steps taken, the place in the epochs, and the slots."""
        state = {"iterations": self.iterations, "place": asdict(self.place), **self.slots}
        return state | ({"averages_in_model": True} if self.averages_in_model else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state_dict, before or after build.

        Raises:
            ValueError: The state is another kind of optimizer's, or does not fit the parameters.
        """
        names = ("iterations", *self.slots)
        if {*state} - {"place", "averages_in_model"} != {*names}:
            raise ValueError(f"state must hold {', '.join(names)}; got {', '.join(state)}")
        iterations = _checks.non_negative_int("iterations", state["iterations"])
        place = Place(**state.get("place", {}))
        slots = {name: [tensor.clone() for tensor in state[name]] for name in self.slots}
        if self.parameters:
            slots = {
                name: _fitted(tensors, self.parameters, self._initial(name))
                for name, tensors in slots.items()
            }
        self.iterations, self.place, self.slots = iterations, place, slots
        self.averages_in_model = state.get("averages_in_model", False)


def _takes_a_step(schedule: Callable[..., Any]) -> bool:
    """Whether a function can be called with one number; of one that does not tell, it may do."""
    try:
        taken = signature(schedule)
    except ValueError:  # some of C have none
        return True
    try:
        taken.bind(0)
    except TypeError:
        return False
    return True


def _fitted(
    tensors: Sequence[Tensor | None], parameters: list[Tensor], initial: float | None = 0.0
) -> list[Tensor]:
    """A slot's tensors in the dtype and on the device of the parameters; where there are none,
    initial values, or copies of the parameters."""
    tensors = tensors or [None] * len(parameters)
    pairs = list(zip(tensors, parameters, strict=False))
    if len(tensors) != len(parameters) or any(
        t is not None and t.shape != p.shape for t, p in pairs
    ):
        raise ValueError("the optimizer's state does not fit the parameters' shapes")
    return [_begun(p, initial) if t is None else t.to(p) for t, p in pairs]


def _begun(parameter: Tensor, initial: float | None) -> Tensor:
    if initial is None:
        return parameter.detach().clone()
    return torch.full_like(parameter, initial, requires_grad=False)
