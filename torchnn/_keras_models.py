"""Models that Keras 3 has written: `.keras` archives of layers that are here, too.

An archive holds config.json, what the model is made of, and model.weights.h5.
"""

import importlib
import inspect
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from torchnn import _config, _keras_weights
from torchnn._files import storage
from torchnn._saving import Frugal
from torchnn.layers import Input, Normalization
from torchnn.model import Model
from torchnn.sequential import Sequential

CONFIG = "config.json"
KINDS = ("layers", "initializers", "regularizers", "constraints", "losses", "metrics")
# Arguments that say nothing here: the type of numbers, and what an option that is off would use.
SILENT = {"dtype", "renorm_momentum"}
RUNNING = {"run_eagerly", "steps_per_execution", "jit_compile"}


def load(path: storage.Path, compiled: bool) -> Model:
    """Returns the model in an archive."""
    with zipfile.ZipFile(path) as archive:
        arrays = _keras_weights.opened(archive)
        config = json.loads(archive.read(CONFIG))
    with Frugal(sum(array.size for own in arrays.values() for array in own)):
        model = _made(config)
        shape = (config.get("build_config") or {}).get("input_shape")
        if isinstance(model, Sequential) and not model.built and shape:
            model.build(shape)
    if model.built or any(arrays.values()):  # else there was nothing to keep
        _keras_weights.put(model, arrays)
    if compiled and config.get("compile_config"):
        options = {n: v for n, v in config["compile_config"].items() if n not in RUNNING}
        model.compile(**_value(options))
    return model


def _value(told: Any) -> Any:
    """What a config stands for."""
    if isinstance(told, list):
        return [_value(each) for each in told]
    if not isinstance(told, dict):
        return told
    if "class_name" not in told:
        return {key: _value(each) for key, each in told.items()}
    if told["class_name"] == "function":  # a name such as relu
        name = told["config"]
        return _config.known_objects().get(name, name)
    return _made(told)


def _made(told: Mapping[str, Any]) -> Any:
    """The thing of a class and its config."""
    name, config = told["class_name"], dict(told.get("config") or {})
    if name == "DTypePolicy":
        return config["name"]
    if name == "__tuple__":
        return tuple(_value(config.get("value", told.get("items", []))))
    if name == "InputLayer":
        return Input(tuple(config["batch_shape"])[1:], name=config.get("name"))
    model: Any
    if name == "Sequential":
        model = Sequential([_made(each) for each in config["layers"]], name=config["name"])
    elif name in ("Functional", "Model"):
        model = _functional(config)
    else:
        return _of_class(told, config)
    if not config.get("trainable", True):
        model.trainable = False
    return model


def _of_class(told: Mapping[str, Any], config: dict[str, Any]) -> Any:
    """The thing of a class that is here, or of one's own."""
    cls = _found(told)
    trainable = config.pop("trainable", True)
    shape = (told.get("build_config") or {}).get("input_shape")
    if cls is Normalization and config.get("mean") is None and shape:  # its arrays will follow
        sizes = [shape[axis] for axis in np.atleast_1d(config["axis"])] if config["axis"] else []
        config |= {"mean": np.zeros(sizes), "variance": np.ones(sizes)}
    taken = {name for each in cls.__mro__ for name in _named(each)}
    # What is not known here and says nothing is left out; the class refuses the rest.
    options = {
        name: _value(value)
        for name, value in config.items()
        if name in taken or not (name in SILENT or value in (None, False, [], {}))
    }
    made = cls(**options)
    if not trainable:
        made.trainable = False
    return made


def _named(cls: type) -> list[str]:
    """The arguments of a class's own __init__ but for its dtype, which is the weights' here."""
    own = vars(cls).get("__init__")
    return [] if own is None else [*(inspect.signature(own).parameters.keys() - {"dtype"})]


def _found(told: Mapping[str, Any]) -> Any:
    """The class that stands here for one of Keras's."""
    module, name = str(told.get("module")), told["class_name"]
    known = _config.known_objects()
    own = known.get(str(told.get("registered_name"))) or known.get(name)
    if own is not None:
        return own
    if ".ops." in module:
        raise ValueError(f"its graph has keras.ops.{name}, which is not read: use a layer instead")
    kind = next((each for each in KINDS if f".{each}" in module), None)
    if "optimizer" in module:
        kind = "optimizers.schedules" if "schedule" in module else "optimizers"
    found = getattr(importlib.import_module(f"torchnn.{kind}"), name, None) if kind else None
    if not isinstance(found, type):
        place = "" if told.get("module") is None else f" of {module}"
        hint = f"pass custom_objects={{{name!r}: ...}}"
        raise ValueError(f"nobody knows {name!r}{place}: {hint}")
    return found


def _functional(config: Mapping[str, Any]) -> Model:
    """A model of the calls that a config lists."""
    layers = {each["name"]: _made(each) for each in config["layers"]}
    waiting = {
        (each["name"], number): node
        for each in config["layers"]
        for number, node in enumerate(each["inbound_nodes"])
    }
    values: dict[tuple[str, int], Any] = {
        (each["name"], 0): layers[each["name"]]
        for each in config["layers"]
        if each["class_name"] == "InputLayer"
    }
    while waiting:
        ready = [key for key, node in waiting.items() if _sources(node) <= set(values)]
        if not ready:
            raise ValueError("its layers call each other in a circle")
        for key in ready:
            node = waiting.pop(key)
            arguments = _called_with(node["args"], values)
            options = {
                n: _called_with(v, values) for n, v in node["kwargs"].items() if v is not None
            }
            values[key] = layers[key[0]](*arguments, **options)
    inputs, outputs = (_ends(config[f"{end}_layers"], values) for end in ("input", "output"))
    return Model(inputs, outputs, name=config["name"])


def _ends(told: Any, values: Mapping[tuple[str, int], Any]) -> Any:
    if isinstance(told, dict):
        return {name: _ends(each, values) for name, each in told.items()}
    if len(told) == 3 and isinstance(told[0], str):
        return values[told[0], told[1]]
    return [_ends(each, values) for each in told]


def _history(told: Mapping[str, Any]) -> tuple[str, int]:
    """Which call of which layer a symbol comes from."""
    name, node, output = told["config"]["keras_history"]
    if output:
        raise ValueError(f"layer {name!r} has several outputs, which no layer has here")
    return name, node


def _is_symbol(told: Any) -> bool:
    return isinstance(told, dict) and told.get("class_name") == "__keras_tensor__"


def _sources(told: Any) -> set[tuple[str, int]]:
    """The calls that arguments depend on."""
    if _is_symbol(told):
        return {_history(told)}
    parts = told.values() if isinstance(told, dict) else told if isinstance(told, list) else ()
    return set().union(*map(_sources, parts))


def _called_with(told: Any, values: Mapping[tuple[str, int], Any]) -> Any:
    """Arguments, with symbols in their places."""
    if _is_symbol(told):
        return values[_history(told)]
    if isinstance(told, list):
        return [_called_with(each, values) for each in told]
    return _value(told)
