"""Networks of a sweep in files: what came of them, and the folder of one that was interrupted.

Each network's weights are the bytes of a file of its own, as Model.save_weights writes it, and here
one tensor of bytes. The text beside them says what the networks are; no code is in it.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchnn._files import storage, tree
from torchnn._version import __version__
from torchnn.sweeps._chunks import Network, Outcome
from torchnn.sweeps._table import told

FORMAT = 1
SWEEP = "sweep.safetensors"  # of a backup, what the sweep is


def write(
    path: storage.Path,
    outcomes: Iterable[Outcome],
    networks: Iterable[Network] = (),
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a file.

    Args:
        path: Where to.
        outcomes: What came of networks.
        networks: What they are.
        about: What else there is to say, in plain values.

    Raises:
        OSError: The folder is missing, the disk is full, or the like.
    """
    tensors: dict[str, Tensor] = {}
    kept: list[Any] = []
    for each in outcomes:
        tensors[str(each.number)] = torch.frombuffer(bytearray(each.weights), dtype=torch.uint8)
        kept.append(vars(each) | {"weights": None})
    listed = [vars(each) | {"settings": plain(each.settings)} for each in networks]
    contents = {"outcomes": kept, "networks": listed, "about": dict(about or {})}
    text = {"format": FORMAT, "version": __version__, "sweep": tree.encode(contents, {}, "/sweep")}
    storage.write(path, tensors, text)


def read(path: storage.Path) -> tuple[list[Outcome], list[Network], dict[str, Any]]:
    """Returns what write was given, with settings in plain values.

    Raises:
        OSError: There is no such file.
        ValueError: It is damaged, or of another kind.
    """
    tensors, text = storage.read(path)
    if not isinstance(text, dict) or "sweep" not in text or text.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)!r} holds no sweep that torchnn {__version__} can read")
    try:
        contents = tree.decode(text["sweep"], {}, {})
        outcomes = [
            Outcome(**each | {"weights": tensors[str(each["number"])].numpy().tobytes()})
            for each in contents["outcomes"]
        ]
        return outcomes, [Network(**each) for each in contents["networks"]], contents["about"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error


def plain(value: Any) -> Any:
    """Returns a value as numbers and strings, which any file can hold; of objects, their names."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else told(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else told(value)


class Backup:
    """A folder that keeps what has been trained, for the same sweep when it is begun again.

    Args:
        folder: Where; it is made if it is missing.
        about: What the sweep is, in plain values.

    Raises:
        ValueError: The folder is that of another sweep.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Any, about: Mapping[str, Any]) -> None:
        self._folder = os.fspath(storage.checked(folder, "backup"))
        os.makedirs(self._folder, exist_ok=True)
        path, about = os.path.join(self._folder, SWEEP), plain(about)
        if not os.path.exists(path):
            write(path, [], about=about)
        _, _, kept = read(path)
        for name, value in about.items():
            if kept.get(name) != value:
                raise ValueError(
                    f"backup {self._folder!r} is of another sweep: {name} differs. Each sweep "
                    "needs a folder of its own"
                )

    def keep(self, rung: int, outcomes: Sequence[Outcome]) -> None:
        """Writes what came of a chunk."""
        name = f"{rung}-{outcomes[0].number:06d}.safetensors"
        write(os.path.join(self._folder, name), outcomes)

    def kept(self, rung: int) -> dict[int, Outcome]:
        """Returns what there is of a rung, by the networks' numbers."""
        names = sorted(n for n in os.listdir(self._folder) if n.startswith(f"{rung}-"))
        found = [each for n in names for each in read(os.path.join(self._folder, n))[0]]
        return {each.number: each for each in found}


def fingerprint(*values: Any) -> str:
    """Returns what tells arrays from others: the same for the same numbers, in any process."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, (list, tuple)) and any(getattr(v, "ndim", 0) for v in value):
            digest.update(fingerprint(*value).encode())
        elif value is not None:
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
