"""Weights that Keras 3 has written, in `.weights.h5` files and in `.keras` archives.

The arrays of a layer are in the group `layers/dense_1/vars`, named by the layer's class and its
number among those of this class; models within have groups of their own.
"""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from torchnn import _warnings
from torchnn._files import storage
from torchnn.layers import Input, Normalization
from torchnn.layers._graph import Place
from torchnn.layers._values import leaves

WEIGHTS = "model.weights.h5"  # in an archive
HDF5 = b"\x89HDF\r\n\x1a\n"
Array = np.ndarray[Any, Any]


def is_archive(path: storage.Path) -> bool:
    """Whether a file is a zip archive, as Keras's models are and PyTorch's files, too."""
    return os.path.isfile(path) and zipfile.is_zipfile(path)


def opened(archive: zipfile.ZipFile) -> dict[str, list[Array]]:
    """Returns the arrays in an archive.

    Raises:
        ValueError: It is none of Keras's.
    """
    if WEIGHTS not in archive.namelist():
        raise ValueError("it is a zip archive, but none of Keras 3's (torch.load reads PyTorch's)")
    with archive.open(WEIGHTS) as file:
        return arrays_of(file)


def is_hdf5(path: storage.Path) -> bool:
    """Whether a file is HDF5, as Keras's weights are and its models were."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(HDF5)) == HDF5


def load(model: nn.Module, path: storage.Path, skip_mismatch: bool = False) -> None:
    """Gives a model the weights in a file of either kind."""
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            arrays = opened(archive)
    else:
        with open(path, "rb") as file:
            arrays = arrays_of(file)
    put(model, arrays, skip_mismatch)


def put(model: Any, arrays: Mapping[str, list[Array]], skip_mismatch: bool = False) -> None:
    """Gives layers their arrays: all of them, or none.

    Raises:
        ValueError: A layer is not in the file, or of another shape there; or one in the file is not
            in the model.
    """
    places = dict(_places(model, "", set()))
    given = {place: arrays.get(place, []) for place in places}
    left = [place for place, own in arrays.items() if own and place not in places]
    wrong = [f"the model has no place for {place}" for place in left]
    fits = {}
    for place, layer in places.items():
        if type(layer) is Normalization:  # Keras counts samples, too, and may keep no statistics
            given[place] = given[place][:2] or layer.get_weights()
        shapes = [array.shape for array in given[place]]
        try:
            wanted = layer._weight_shapes(shapes)
        except ValueError as error:
            raise ValueError(f"{error} (it can be built before its weights are read)") from error
        if shapes == wanted:
            fits[place] = layer
        else:
            wrong.append(f"{layer._called()} wants {wanted}, and {place} has {shapes}")
    if wrong and not skip_mismatch:
        raise ValueError(f"its weights are not this model's: {'; '.join(wrong)}")
    if wrong:
        _warnings.warn(f"weights are left out: {'; '.join(wrong)}")
    for place, layer in fits.items():
        layer.set_weights(given[place])


def arrays_of(file: Any) -> dict[str, list[Array]]:
    """The arrays of each layer in an HDF5 file, by the path of its group."""
    try:
        import h5py  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Keras's weights are in HDF5, which needs h5py: pip install h5py"
        ) from error
    found: dict[str, list[Array]] = {}
    with h5py.File(file, "r") as content:
        if "model_weights" in content or "layer_names" in content.attrs:
            raise ValueError("it is of Keras 2's kind: save it with Keras 3, as .keras")

        def visit(name: str, thing: Any) -> None:
            if name.endswith("vars") and isinstance(thing, h5py.Group):
                numbered = sorted(thing, key=int)
                found[name.removesuffix("vars").rstrip("/")] = [thing[n][()] for n in numbered]

        content.visititems(visit)
    return {place: arrays for place, arrays in found.items() if not place.startswith("optimizer")}


def _places(module: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields the path and the layer, for each layer with weights, in the order in which Keras walks
    a model: by its attributes' names, of which `layers` is one."""
    graph = getattr(module, "_graph", None)
    if graph is not None:
        lists = {"layers": _by_depth(module.layers, graph)}
    elif isinstance(module, nn.Sequential):
        lists = {"layers": list(module)}
    else:
        children = dict(module.named_children())
        lists = {n: list(c) for n, c in children.items() if isinstance(c, nn.ModuleList)}
        single = {name: child for name, child in children.items() if name not in lists}
        lists |= {"layers": list(module.layers)} if hasattr(module, "layers") else {}
        for name in sorted({*single, *lists}):
            inner = _numbered(lists[name], f"{prefix}{name}/") if name in lists else None
            yield from _each(inner or [(f"{prefix}{name}", single.get(name))], seen)
        return
    for name, layers in lists.items():
        yield from _each(_numbered(layers, f"{prefix}{name}/"), seen)


def _by_depth(layers: Sequence[Any], graph: Any) -> list[Any]:
    """The layers of a graph in Keras's order: those farthest from the outputs first, and of the
    same depth, those that are met first on the way back from these."""
    makers = [*range(-graph.input_count, 0)]  # the call that each value comes from
    for number, step in enumerate(graph.steps):
        makers += [number] * step.outputs
    met: dict[int, int] = {}  # modules, each with its number
    calls: list[int] = []  # each behind those that it depends on

    def visit(place: int) -> None:
        call = makers[place]
        module = place if call < 0 else graph.steps[call].module
        met.setdefault(module, len(met))
        if call >= 0 and call not in calls:
            for source in _sources(graph.steps[call]):
                visit(source)
            calls.append(call)

    for end in _ends(graph.returns):
        visit(end)
    of_calls: dict[int, int] = {}
    of_modules: dict[int, int] = {}
    for call in reversed(calls):
        step = graph.steps[call]
        depth = max(of_calls.get(call, 0), of_modules.get(step.module, 0))
        of_modules[step.module] = depth
        for source in _sources(step):
            of_calls[makers[source]] = max(depth + 1, of_calls.get(makers[source], 0))
    return [layers[m] for m in sorted(met, key=lambda m: (-of_modules.get(m, 0), met[m]))]


def _ends(returns: Any) -> list[int]:
    """The places of what a graph returns; those of a dict by their keys, as Keras takes them."""
    if isinstance(returns, dict):
        return [place for key in sorted(returns) for place in _ends(returns[key])]
    return list(leaves(returns))


def _sources(step: Any) -> list[int]:
    """The places of the values that a call depends on."""
    return [each for each in leaves([step.inputs, step.options]) if type(each) is Place]


def _each(named: Sequence[tuple[str, Any]], seen: set[int]) -> Iterator[tuple[str, Any]]:
    for path, layer in named:
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        if any(True for _ in layer.children()):
            yield from _places(layer, f"{path}/", seen)
        elif any(True for _ in (*layer.parameters(), *layer.buffers())):
            if not hasattr(layer, "_weight_shapes"):
                raise ValueError(f"the model has a {type(layer).__name__}, which Keras does not")
            yield path, layer


def _numbered(layers: Sequence[Any], prefix: str) -> list[tuple[str, Any]]:
    """Layers with Keras's paths: of those of a class, the second gets a 1."""
    counts: dict[str, int] = {}
    found = []
    for layer in layers:
        name = _snake(_class_name(layer))
        number = counts.get(name, 0)
        counts[name] = number + 1
        found.append((f"{prefix}{name}_{number}" if number else f"{prefix}{name}", layer))
    return found


def _class_name(layer: Any) -> str:
    if isinstance(layer, Input):
        return "InputLayer"
    name = type(layer).__name__
    return "Functional" if name == "Model" else name


def _snake(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
