"""Models and their weights in files: what a file of either kind holds, and back.

The tensors are those of the state dict, under its names, so that any program that reads safetensors
can use them; what the optimizer remembers has names that begin with "/". The text beside them:

    version       of torchnn
    model         class and config; weights alone have none
    shapes        "input" and "sample": what the model was built for
    frozen        parameters that do not learn
    tied          groups of names that are one tensor
    draws         how often layers have drawn from a seed of their own
    extra         what the state dict has that is no tensor
    compile       the arguments of compile, or None
    optimizer     its state dict
    history       the History of the latest fit
"""

import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from torchnn import _checks, _config, _keras_weights, _warnings
from torchnn._engine import building
from torchnn._engine.choice import build_optimizer
from torchnn._engine.run import Samples
from torchnn._files import storage, tree
from torchnn._version import __version__
from torchnn.callbacks import History
from torchnn.layers import _variables
from torchnn.layers._values import mode
from torchnn.layers._weightless import draws, set_draws

FORMAT = 1
# What building a model may take beside its weights, in numbers: activations, first values.
WORK = 2**26


def save(model: Any, path: storage.Path, overwrite: bool, include_optimizer: bool) -> None:
    """Writes all that a model is: see Model.save."""
    _check_overwrite(path, overwrite)
    tensors, contents = contents_of(model)
    contents["model"] = _encoded("the model", _config.plain(model), tensors)
    contents["compile"] = contents["optimizer"] = None
    if model._recipe is not None and include_optimizer:
        contents |= _training(model, tensors)
    history = model.history
    if history is not None:
        kept = {"epoch": history.epoch, "history": history.history}
        contents["history"] = _encoded("the history", kept, tensors)
    storage.write(path, tensors, contents)


def save_weights(model: Any, path: storage.Path, overwrite: bool) -> None:
    """Writes the weights alone: see Model.save_weights."""
    _check_overwrite(path, overwrite)
    if not building.is_built(model):
        raise ValueError(f"the model has no weights yet: {_variables.UNBUILT}")
    storage.write(path, *contents_of(model))


def load(
    path: storage.Path, custom_objects: Mapping[str, Any] | None = None, compiled: bool = True
) -> Any:
    """Returns the model in a file: see models.load_model."""
    tensors, text = storage.read(path)
    with told(path), _config.known(custom_objects), _config.untrusted():
        contents = _checked(text)
        if "model" not in contents:
            raise ValueError("it holds weights alone: make the model and call its load_weights")
        contents = tree.decode(contents, tensors, _config.known_objects())
        with Frugal(sum(tensor.numel() for tensor in tensors.values())):
            model = _config.found(contents["model"])
            _build(model, contents["shapes"])
        _take(model, tensors, contents)
        if compiled and contents["compile"] is not None:
            model.compile(**_config.found(contents["compile"]))
            if any(parameter.requires_grad for parameter in model.parameters()):
                build_optimizer(model, model._recipe)
            model.optimizer.load_state_dict(contents["optimizer"])
        if contents.get("history") is not None:
            model.history = _history(model, contents["history"])
    return model


def load_weights(model: Any, path: storage.Path, skip_mismatch: bool) -> None:
    """Takes the weights of a file: see Model.load_weights."""
    storage.checked(path, "filepath")
    if _keras_weights.is_hdf5(path) or _keras_weights.is_archive(path):
        with told(path):
            _keras_weights.load(model, path, skip_mismatch)
        return
    tensors, text = storage.read(path)
    with told(path):
        _put_contents(model, tensors, {} if text is None else _checked(text), skip_mismatch)


def _put_contents(
    model: Any, tensors: Mapping[str, Tensor], text: Mapping[str, Any], skip_mismatch: bool
) -> None:
    """Gives a model the weights of a file, and builds it for them if it is not built."""
    contents = {name: text.get(name) for name in ("shapes", "extra")}
    contents = tree.decode(contents, tensors, {})
    if not building.is_built(model) and contents["shapes"]:
        _build(model, contents["shapes"])
    put(model, tensors, contents["extra"] or {}, skip_mismatch)


def pack(model: Any, with_optimizer: bool = False) -> bytes:
    """Returns what save_weights would write, for unpack.

    Args:
        model: A model that is built.
        with_optimizer: Whether to keep how far training has come, so that it can go on.
    """
    tensors, contents = contents_of(model)
    if with_optimizer:
        optimizer = model.optimizer
        rate = None if callable(optimizer.learning_rate) else optimizer.current_learning_rate()
        contents["rate"] = rate  # a callback may have changed it
        contents["optimizer"] = _encoded("optimizer", optimizer.state_dict(), tensors)
    return storage.pack(tensors, contents)


def unpack(model: Any, data: bytes, with_optimizer: bool = True) -> None:
    """Gives a model that is made and compiled like the one of pack what that one had."""
    tensors, contents = storage.unpack(data, "the weights")
    _put_contents(model, tensors, contents, skip_mismatch=False)
    set_draws(model, contents["draws"])
    if with_optimizer and "optimizer" in contents:
        build_optimizer(model, model._recipe)
        model.optimizer.load_state_dict(tree.decode(contents["optimizer"], tensors, {}))
        if contents["rate"] is not None:
            model.optimizer.learning_rate = contents["rate"]


def without_optimizer(data: bytes) -> bytes:
    """Returns what pack returns without how far training has come."""
    tensors, contents = storage.unpack(data, "the weights")
    tensors = {name: each for name, each in tensors.items() if not name.startswith("/optimizer/")}
    left = {name: each for name, each in contents.items() if name not in ("optimizer", "rate")}
    return storage.pack(tensors, left)


def export(model: Any, path: storage.Path, form: str | None) -> None:
    """Writes a program that computes the model: see Model.export."""
    kind = form or os.path.splitext(os.fspath(storage.checked(path, "filepath")))[1].lstrip(".")
    kind = _checks.choice("format", kind, tuple(EXPORTERS))
    shapes = _input_shapes(model)
    if not building.is_built(model) or None in shapes:
        raise ValueError(f"the model has no weights yet: {_variables.UNBUILT}")
    own = building.form(model)
    inputs: Any = [torch.zeros(2, *each, dtype=own.dtype, device=own.device) for each in shapes]
    sizes: Any = [{0: torch.export.Dim("batch")} for _ in inputs]  # any number of samples
    if len(inputs) == 1:
        (inputs,), (sizes,) = inputs, sizes
    with mode(model, training=False), torch.no_grad():
        data = EXPORTERS[kind](model, inputs, sizes)
    storage.replace(path, data)


def _input_shapes(model: Any) -> list[Any]:
    """The axes of a sample of each input."""
    if getattr(model, "_graph", None) is not None:
        return list(model._graph.shapes[: model._graph.input_count])
    return [
        getattr(model, "_input_shape", None) or model.sample_shape or model._form().shape or None
    ]


def _program(model: Any, inputs: Any, sizes: Any) -> bytes:
    """PyTorch's own format."""
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (inputs,), dynamic_shapes=(sizes,)), file)
    return file.getvalue()


def _onnx(model: Any, inputs: Any, sizes: Any) -> bytes:
    try:
        import onnxscript  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ONNX needs onnx and onnxscript: pip install 'torchnn-fused[onnx]'"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter, of its own parts
        program = torch.onnx.export(
            model, (inputs,), dynamo=True, dynamic_shapes=(sizes,), verbose=False
        )
    return program.model_proto.SerializeToString()  # type: ignore[union-attr]


EXPORTERS = {"onnx": _onnx, "pt2": _program}


def contents_of(model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a model's state dict, and what else there is to say of its weights."""
    _variables.settle(model)
    state = model.state_dict(keep_vars=True)
    tensors = {n: t for n, t in state.items() if isinstance(t, Tensor) and not is_lazy(t)}
    extra = {n: value for n, value in state.items() if not isinstance(value, Tensor)}
    shapes = {"input": getattr(model, "_input_shape", None), "sample": model.sample_shape}
    parameters = {n: t for n, t in tensors.items() if isinstance(t, nn.Parameter)}
    contents: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "frozen": [name for name, each in parameters.items() if not each.requires_grad],
        "tied": [names for names in _same(parameters) if len(names) > 1],
        "draws": draws(model),
    }
    contents["shapes"] = _encoded("the shapes", shapes, tensors)
    contents["extra"] = _encoded("the state dict", extra, tensors)
    return tensors, contents


def put(
    model: Any, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], skip_mismatch: bool
) -> None:
    """Copies tensors, and what else there is, into a model: all of them, or none.

    Raises:
        ValueError: Names or shapes differ.
    """
    state = model.state_dict(keep_vars=True)
    given = {**{n: t for n, t in tensors.items() if not n.startswith("/")}, **extra}
    lacking = [name for name, own in state.items() if name not in given and not is_lazy(own)]
    unknown = [name for name in given if name not in state]
    shapes = [
        f"{name} has shape {tuple(given[name].shape)}, the model's {tuple(own.shape)}"
        for name, own in state.items()
        if isinstance(own, Tensor) and name in given and not is_lazy(own)
        if own.shape != given[name].shape
    ]
    difference = _difference(lacking, unknown, shapes)
    if difference and not skip_mismatch:
        raise ValueError(f"its weights are not this model's: {difference}")
    if difference:
        _warnings.warn(f"weights are left out: {difference}")
    unfit = {line.split(" has shape ")[0] for line in shapes}
    fits = {n: v for n, v in given.items() if n in state and n not in unfit}
    model.load_state_dict(fits, strict=False)


def _training(model: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """How a model is trained, and how far that has come; or a warning, and nothing of it."""
    aside: dict[str, Tensor] = {}
    try:
        config = model.get_compile_config()
        for name in ("metrics", "weighted_metrics"):
            config[name] = _without_nameless(name, config[name])
        known = {
            "compile": _encoded("compile", config, aside),
            "optimizer": _encoded("optimizer", model.optimizer.state_dict(), aside),
        }
    except TypeError as error:
        _warnings.warn(
            f"the file will not tell how to train the model, so call compile after load_model: "
            f"{error}"
        )
        return {}
    tensors |= aside
    return known


def _without_nameless(name: str, metrics: Any) -> Any:
    """A list of metrics without those that no name tells, of which it warns."""
    if not isinstance(metrics, list):
        return metrics
    kept = []
    for metric in metrics:
        try:
            _encoded(name, metric, {})
        except TypeError as error:
            _warnings.warn(f"the file will lack a metric: {error}")
        else:
            kept.append(metric)
    return kept


def _encoded(what: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    return tree.encode(value, tensors, f"/{what.removeprefix('the ').replace(' ', '_')}")


def _checked(text: Any) -> dict[str, Any]:
    """What a file says, if it is one of ours, and of a version that is known here."""
    if not isinstance(text, dict):
        raise ValueError("it was not written by save or save_weights of torchnn")
    if text.get("format") != FORMAT:
        raise ValueError(
            f"its format is {text.get('format')!r}, written by torchnn {text.get('version')}; "
            f"torchnn {__version__} reads format {FORMAT}"
        )
    return text


@contextmanager
def told(path: storage.Path) -> Iterator[None]:
    """Turns whatever a file's contents lead to into a ValueError that names the file."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded: {what}") from error


class Frugal(TorchDispatchMode):
    """While a model is made, refuses to make tensors much larger than the weights in its file.

    Args:
        numbers: How many these are.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = WORK + 16 * numbers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sizes = args[0] if args else ()
        if isinstance(sizes, (list, tuple)) and all(isinstance(each, int) for each in sizes):
            self._count(prod(sizes))  # before there is such a tensor
        output = func(*args, **kwargs or {})
        if isinstance(output, Tensor) and not any(output is each for each in args):
            self._count(output.untyped_storage().nbytes() // 8)
        return output

    def _count(self, numbers: int) -> None:
        self._left -= numbers
        if self._left < 0:
            raise ValueError("its configuration is of a much larger model than its weights")


def _build(model: Any, shapes: Mapping[str, Any]) -> None:
    """Builds a model for the shape that it was built for, if that is known and it is not."""
    if not hasattr(model, "_recipe"):
        raise ValueError(f"it holds a {type(model).__name__}, which is no model")
    given, seen = (_shape(shapes[name]) for name in ("input", "sample"))
    shape = seen if given is None else given
    if shape is not None and not building.is_built(model):
        form = building.form(model)
        zeros = torch.zeros(1, *shape, dtype=form.dtype, device=form.device)
        building.prepare(model, None, Samples(zeros))
    if hasattr(model, "_input_shape"):
        if given is not None and model._input_shape not in (None, given):
            raise ValueError(f"it is for samples of shape {given}, and for {model._input_shape}")
        model._input_shape = given  # other shapes may follow where none was told
    model.sample_shape = seen


def _shape(value: Any) -> Any:
    """The axes of a sample, or of each of several in a tuple; or None."""
    if value is None:
        return None
    sizes = [_shape(n) if isinstance(n, tuple) else _checks.positive_int("shape", n) for n in value]
    return tuple(sizes)


def _take(model: Any, tensors: Mapping[str, Tensor], contents: Mapping[str, Any]) -> None:
    """Gives a new model the tensors of its file, their dtypes included, and its ties."""
    kinds = {name: own.dtype for name, own in model.state_dict().items() if isinstance(own, Tensor)}
    for name, owner, key in list(_places(model)):
        given = tensors.get(name)
        own = getattr(owner, key)
        if given is not None and not is_lazy(own) and kinds.get(name) != given.dtype:
            own.data = own.data.to(given.dtype)
    put(model, tensors, contents["extra"], skip_mismatch=False)
    places = {name: (owner, key) for name, owner, key in _places(model)}
    for first, *others in contents["tied"]:
        shared = getattr(*places[first])
        for owner, key in map(places.__getitem__, others):
            owner._parameters[key] = shared
    for name in contents["frozen"]:
        getattr(*places[name]).requires_grad = False
    set_draws(model, contents["draws"])


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yields the name of each parameter and buffer, the module that has it, and its name there."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own in (module._parameters, module._buffers):
            for key, tensor in own.items():
                if tensor is not None:
                    yield f"{prefix}.{key}" if prefix else key, module, key


def _same(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of the tensors, those of the same one together."""
    by_identity = sorted(tensors, key=lambda name: id(tensors[name]))
    return [list(names) for _, names in groupby(by_identity, lambda name: id(tensors[name]))]


def _history(model: Any, kept: Mapping[str, Any]) -> History:
    history = History()
    history.set_model(model)
    history.epoch, history.history = list(kept["epoch"]), dict(kept["history"])
    return history


def _check_overwrite(path: storage.Path, overwrite: bool) -> None:
    if not _checks.truth("overwrite", overwrite) and os.path.lexists(storage.checked(path)):
        raise FileExistsError(f"{os.fspath(path)!r} is there already, and overwrite is False")


def _difference(lacking: list[str], unknown: list[str], shapes: list[str]) -> str:
    parts = [f"it lacks {', '.join(lacking)}"] if lacking else []
    parts += [f"it has {', '.join(unknown)}, which the model lacks"] if unknown else []
    return "; ".join([*parts, *shapes])
