"""Named tensors and a text in one file: safetensors, written whole or not at all."""

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Mapping
from itertools import count
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

PART = ".part"  # what the name of a file ends in that is not whole yet
KEY = "torchnn"  # of our text among the metadata, all of which is text
Path = str | os.PathLike[str]
_numbers = count()


def write(path: Path, tensors: Mapping[str, Tensor], text: Any) -> None:
    """Writes a file; whatever goes wrong, one of that name that was there before stays whole.

    Args:
        path: Where to; its folder must be there.
        tensors: What to write, by names.
        text: What JSON can hold.

    Raises:
        OSError: The folder is missing, the disk is full, or the like.
    """
    replace(path, pack(tensors, text))


def pack(tensors: Mapping[str, Tensor], text: Any) -> bytes:
    """Returns the bytes of a file of these tensors and this text."""
    alone = {name: _alone(tensor) for name, tensor in tensors.items()}
    return save(alone, {"format": "pt", KEY: dumps(text)})


def replace(path: Path, data: bytes) -> None:
    """Puts a file of these bytes in the place of path, if there is one: all of it or nothing.

    Raises:
        OSError: The folder is missing, the disk is full, or the like.
    """
    target = os.path.realpath(checked(path))  # a link goes on leading to the file
    if os.path.isdir(target):
        raise IsADirectoryError(f"path must be a file, got the folder {os.fspath(path)!r}")
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path {os.fspath(path)!r} is in a folder that is not there")
    # Others may be writing the same file: threads of this process, too.
    beside = os.path.join(folder, f".{name}.{os.getpid()}-{next(_numbers)}{PART}")
    try:
        with open(beside, "xb") as file:
            if os.path.exists(target):
                shutil.copymode(target, beside)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(beside)
        if isinstance(error, OSError):  # that names the file beside, or none
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
        raise
    _settle(folder)


def remove(path: Path) -> None:
    """Removes a file, if it is there, and what writers of it have left behind that were killed."""
    folder, name = os.path.split(path)
    for each in os.listdir(folder or "."):
        if each == name or (each.startswith(f".{name}.") and each.endswith(PART)):
            os.remove(os.path.join(folder, each))


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Returns the tensors and the text of a file; of one that write did not write, None for that.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is damaged, or of another kind.
    """
    with open(checked(path), "rb") as file:
        data = file.read()  # once: another file may be in its place a moment later
    return unpack(data, path)


def unpack(data: bytes, path: Path) -> tuple[dict[str, Tensor], Any]:
    """Returns the tensors and the text that are in the bytes of a file.

    Args:
        data: The bytes.
        path: What messages call them.

    Raises:
        ValueError: They are damaged, or of another kind.
    """
    try:
        # Copies, which lie wherever they come to lie, and not where the file has them.
        tensors = {name: tensor.clone() for name, tensor in sorted(load(data).items())}
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged, or was not written by save or save_weights: {error}"
        ) from error
    (size,) = struct.unpack_from("<Q", data)  # of the header, which the library has found right
    text = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get(KEY)
    return tensors, None if text is None else loads(text, path)


def checked(path: Any, name: str = "path") -> Path:
    """Returns a path, if it is one.

    Args:
        path: Whatever was given.
        name: What messages call it.

    Raises:
        TypeError: It is none.
        ValueError: It is empty.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a string or a path, got {path!r}")
    if not os.fspath(path):
        raise ValueError(f"{name} must not be empty, got ''")
    return path


def dumps(text: Any) -> str:
    return json.dumps(text, allow_nan=False)


def loads(text: str, path: Path) -> Any:
    """Returns what dumps was given.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error


def _alone(tensor: Tensor) -> Tensor:
    """A tensor on the CPU that shares no memory, as the library wants them."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _settle(folder: str) -> None:
    """Has the new name outlast a power failure, where folders can be synchronised."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
