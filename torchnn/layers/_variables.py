"""Weights as Keras's variables: in its order and under its names, to be read and assigned."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import _checks
from torchnn.layers import _building, _held
from torchnn.layers._call import Called
from torchnn.layers._symbols import Shape, latest

# By TorchScript, which would compile them.
PROPERTIES: tuple[str, ...] = (
    *("weights", "trainable_weights", "non_trainable_weights"),
    *("variables", "trainable_variables", "non_trainable_variables"),
    *("input", "output", "input_shape", "output_shape", "losses", "trainable"),
)


# Attributes that are PyTorch's, or that remember layers and own none.
_OWN = {*vars(nn.Module()), "_told", "_views"}


class Variable(Tensor):
    """A weight as Keras has it: a kernel's shape is (in_features, units).

    It is a view: it shows what the weight is at the time, and what is assigned to it, the weight
    becomes. To PyTorch's functions it is a tensor, through which gradients reach the weight; to
    NumPy's it is an array.

    Attributes:
        name: Keras's name of it, "kernel".
        path: That, after the layer's: "dense/kernel".
        trainable: Whether it is a parameter that requires a gradient.
        weight: What it is a view of.
    """

    name = ""  # in place of a tensor's own, which cannot be set
    path = ""
    trainable = False
    weight: Tensor
    _is_kernel = False
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """Returns a copy; bfloat16, which NumPy lacks, becomes float32."""
        tensor = self.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()

    def turned(self, grad: Any) -> Any:
        """The gradient of the weight as that of this view, and the other way round."""
        return grad.t() if self._is_kernel else grad

    def assign(self, value: Any) -> "Variable":
        """Gives the weight other numbers, of the same shape.

        Raises:
            ValueError: The shape is another; nothing has changed then.
        """
        value = _checks.tensor("value", value)
        if value.shape != self.shape:
            raise ValueError(
                f"value must have shape {tuple(self.shape)}, that of {self.path}, "
                f"got {tuple(value.shape)}"
            )
        with torch.no_grad():
            self.copy_(value)
        return self

    def assign_add(self, value: Any) -> "Variable":
        """Adds numbers to the weight."""
        return self.assign(self.detach() + _checks.tensor("value", value).to(self.device))

    def assign_sub(self, value: Any) -> "Variable":
        """Subtracts numbers from the weight."""
        return self.assign(self.detach() - _checks.tensor("value", value).to(self.device))

    def __float__(self) -> float:
        return float(self.numpy().item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_arrays(args), **{name: _arrays(value) for name, value in kwargs.items()})

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(function, method)(*_arrays(inputs), **options)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"<Variable {self.path}, shape={tuple(self.shape)}, value={self.numpy()}>"


class Batch(NamedTuple):
    """What goes into or comes out of a layer, as far as its shape goes."""

    shape: Shape


# The Sequential that a layer was last part of when its shapes became known.
_owners: "WeakKeyDictionary[nn.Module, ref[HasWeights]]" = WeakKeyDictionary()


class HasWeights(nn.Module):
    """A module that shows its weights as Keras's variables.

    Modules in a list, a tuple or a dict that is an attribute are its own, too: it becomes an
    `nn.ModuleList` or an `nn.ModuleDict`, at once or, where it is filled later, when the class's
    __init__ is done or the model is compiled.

    Attributes:
        weights: All of them; none before they are built.
        trainable_weights: Those that fit changes.
        non_trainable_weights: The others, moving averages and what is frozen.
        input_shape: That of a batch, (None, 400); None before it is known.
        output_shape: Likewise.
    """

    name: Any
    # From the Keras name of each weight of its own to the attribute; None for PyTorch's names.
    _named: dict[str, str] | None = None
    _shapes: tuple[Shape, Shape] | None = None  # of what went in and came out
    _builds = False  # whether the class has a build of one's own
    _unnamed: tuple[str, ...] = ()  # what add_weight has made and no attribute has taken yet
    _keeps_lists = False  # whether modules of its own are in a list or a dict, too
    _goes_past = True  # whether nn.Module's __setattr__ is the one behind this class's

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._goes_past = super().__setattr__ is nn.Module.__setattr__
        if cls.__module__.partition(".")[0] == "torchnn":
            return
        before = getattr(super(cls, cls), "build", None)
        is_first = before is None or before.__qualname__ == "Layer.build"
        if "build" in vars(cls) and (is_first or cls._builds):
            cls._builds = True
            cls.build = _building.building(vars(cls)["build"])  # type: ignore[attr-defined]
        if "__init__" in vars(cls):
            cls.__init__ = _settling(vars(cls)["__init__"])  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        is_plain = not isinstance(value, (Tensor, nn.Module)) and type(value) not in _held.KINDS
        if is_plain and self._goes_past and not _is_registered(self, name):
            super(nn.Module, self).__setattr__(name, value)  # past its search for other things
            return
        # PyTorch would take it in, and the property hide it.
        if isinstance(value, (nn.Module, nn.Parameter)) and _is_fixed(getattr(type(self), name, 0)):
            raise AttributeError(
                f"{name} is what a {type(self).__name__} tells of itself, and cannot be assigned: "
                "give the attribute another name"
            )
        if self._unnamed and isinstance(value, Tensor) and _building.name(self, name, value):
            return
        if type(value) in _held.KINDS and "_modules" in vars(self) and name not in _OWN:
            value = _held.registered(self, name, value)
            if not isinstance(value, nn.Module):
                self._modules.pop(name, None)  # PyTorch would have nothing but a module again
                self._keeps_lists |= bool(_held.modules_in(value))
        super().__setattr__(name, value)

    def _settle(self) -> None:
        """Registers what lists, tuples and dicts have come to hold since they were assigned."""
        if "_modules" not in vars(self):
            return
        for name, value in list(vars(self).items()):
            if type(value) in _held.KINDS and name not in _OWN:
                held = _held.registered(self, name, value)
                if held is not value:
                    setattr(self, name, held)
                elif _held.modules_in(value):
                    self._keeps_lists = True

    @property
    def weights(self) -> list[Variable]:
        return variables(self)

    @property
    def trainable_weights(self) -> list[Variable]:
        return [each for each in self.weights if each.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [each for each in self.weights if not each.trainable]

    variables = weights
    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    def count_params(self) -> int:
        """Returns the number of numbers in all weights.

        Raises:
            ValueError: They are not built.
        """
        if any(map(is_lazy, self.parameters())):
            raise ValueError(f"{called(self)} has no weights yet: {UNBUILT}")
        return sum(each.numel() for each in self.weights)

    @property
    def input_shape(self) -> Shape | None:
        shapes = self._known_shapes()
        return None if shapes is None else shapes[0]

    @property
    def output_shape(self) -> Shape | None:
        shapes = self._known_shapes()
        return None if shapes is None else shapes[1]

    @property
    def input(self) -> Any:
        """The symbol that it was last called on; or what goes in, as far as its shape goes; None
        before that is known."""
        return self._latest(0, self.input_shape)

    @property
    def output(self) -> Any:
        """The symbol that came of the last one; or what comes out, likewise."""
        return self._latest(1, self.output_shape)

    def _latest(self, place: int, shape: Shape | None) -> Any:
        call = latest(self) or (None if shape is None else self._traced())
        if call is not None:
            return call[place]
        return None if shape is None else Batch(shape)

    def _traced(self) -> tuple[Any, Any] | None:
        """The symbols that it gets and gives in the Sequential that it is part of, or None."""
        owner = _owners.get(self, lambda: None)()
        if owner is None or owner._traced() is None:
            return None
        return latest(self)

    def _known_shapes(self) -> tuple[Shape, Shape] | None:
        return self._shapes


def settle(module: nn.Module) -> None:
    """Registers what lists, tuples and dicts of a module, and of those in it, hold."""
    for each in list(module.modules()):
        if isinstance(each, HasWeights):
            each._settle()


def _settling(init: Callable[..., None]) -> Callable[..., None]:
    """An __init__ that registers what lists hold once it is done."""

    @wraps(init)
    def settling(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self._settle()

    return settling


def _is_registered(module: nn.Module, name: str) -> bool:
    """Whether PyTorch keeps something of the module's own under a name."""
    own, none = vars(module), ()
    return (
        name in own.get("_parameters", none)
        or name in own.get("_buffers", none)
        or name in own.get("_modules", none)
    )


def _is_fixed(attribute: Any) -> bool:
    return isinstance(attribute, property) and attribute.fset is None


UNBUILT = "build the model, call it on data, or put an Input in front"


def called(module: nn.Module) -> str:
    """What messages call a module."""
    name = getattr(module, "name", None)
    kind = type(module).__name__
    return f"layer {name!r}" if isinstance(name, str) and name else f"this {kind} layer"


def variables(module: nn.Module) -> list[Variable]:
    """Returns a module's weights: its own, and then those of the modules in it, each once.

    Those of a module that is not built are none.
    """
    found: dict[int, Variable] = {}
    _gather(module, "", found)
    return list(found.values())


def _gather(module: nn.Module, path: str, found: dict[int, Variable]) -> None:
    name = getattr(module, "name", None)
    path = f"{path}{name}/" if isinstance(name, str) and name else path
    for each in own(module):
        found.setdefault(id(each[1]), _variable(*each, path))
    for key, child in module.named_children():
        if key != "parametrizations" or getattr(module, "_named", None) is None:
            _gather(child, path, found)


def own(module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yields name, tensor and whether it is a kernel, of the weights that are a module's own."""
    table = getattr(module, "_named", None)
    named = table
    if named is None:
        buffers = [n for n in module._buffers if n not in module._non_persistent_buffers_set]
        named = {name: name for name in (*module._parameters, *buffers)}
    for name, attribute in named.items():
        tensor = getattr(module, attribute)
        if tensor is not None and not is_lazy(tensor) and tensor.numel():
            # A weight that somebody else calls so has the shape that they gave it.
            yield name, tensor, name == "kernel" and table is not None


def _variable(name: str, tensor: Tensor, is_kernel: bool, path: str) -> Variable:
    with torch.enable_grad():
        view = tensor.t() if is_kernel else tensor.view_as(tensor)
        variable = view.as_subclass(Variable)
    variable.name, variable.path = name, path + name
    variable.weight, variable._is_kernel = tensor, is_kernel
    variable.trainable = isinstance(tensor, nn.Parameter) and tensor.requires_grad
    return variable


def is_chain(module: nn.Sequential) -> bool:
    """Whether a call of it is one layer after the other and nothing else."""
    return type(module).forward is nn.Sequential.forward and is_forward_alone(module)


def is_forward_alone(module: nn.Module) -> bool:
    """Whether a call of it is its class's forward and nothing else."""
    own = vars(module)
    return (
        type(module).__call__ in (Called.__call__, nn.Module.__call__)
        and "forward" not in own
        and own.get("_compiled_call_impl") is None
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"])
    )


class Told:
    """The shapes of what a module, and the layers of a Sequential, get and give."""

    def __init__(self) -> None:
        self._found: list[tuple[HasWeights, Shape, Shape]] = []

    def run(self, module: nn.Module, x: Any) -> Any:
        """Returns module(x), and notes them."""
        output = x
        if isinstance(module, nn.Sequential) and is_chain(module):
            for layer in module:
                output = self.run(layer, output)
        else:
            output = module(x)
        if isinstance(x, Tensor) and isinstance(output, Tensor):
            self.note(module, x.shape[1:], output.shape[1:])
        return output

    def note(self, module: nn.Module, before: Sequence[int], after: Sequence[int]) -> None:
        """Notes those of a module, given the axes of a sample."""
        if isinstance(module, HasWeights):
            self._found.append((module, Shape((None, *before)), Shape((None, *after))))

    def keep(self) -> None:
        """Lets them know."""
        for module, before, after in self._found:
            vars(module)["_shapes"] = before, after  # without __setattr__'s searches


def claim(module: nn.Module) -> None:
    """Lets the layers of a Sequential, and of those in it, know which one they are part of."""
    if isinstance(module, HasWeights) and isinstance(module, nn.Sequential):
        for layer in module:
            _owners[layer] = ref(module)
            claim(layer)


def _arrays(value: Any) -> Any:
    """Variables as arrays, also in lists and tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_arrays, value))
    return value.numpy() if isinstance(value, Variable) else value
