"""Files that are not what save wrote: bytes and values changed, cut, repeated, put elsewhere.

Loading one returns a model, or raises ValueError or OSError; what it does to a model that takes its
weights is all or nothing.
"""

import copy
import json
import os
import random
import resource
import struct
import tempfile
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from torchnn import Input, Model, Sequential
from torchnn.layers import BatchNormalization, Concatenate, Dense, Dropout, Normalization
from torchnn.models import load_model

MEMORY = 6 << 30  # of the child's addresses: what asks for more fails, and that is a finding
STRANGE = [
    *(None, True, False, 0, -1, 1, 2, 3, 10**6, 10**12, 2**63, -(2**63), 0.5, -0.0, 1e308),
    *("", "x", "float32", "relu", "system", "torch", "__class__", "dense", "0.weight", "\ud800"),
    *([], {}, [[]], [None, 3], [None, 10**12], {"$": "tensor", "key": "0.weight"}),
    *({"$": "function", "module": "torch", "name": "load"}, {"$": "tuple", "items": [1, 2]}),
    *({"$": "function", "module": "os", "name": "system"}, {"$": "dtype", "name": "load"}),
    *({"$": "float", "value": "nan"}, {"$": "ellipsis"}, {"$place": 0}, {"$place": 99}),
    {"$": "partial", "function": {"$": "function", "name": "eval"}, "inputs": [], "options": {}},
    {"module": "torchnn.layers", "class_name": "Dense", "config": {"units": 3}},
    {"module": "torchnn.layers", "class_name": "Lambda", "config": {"function": "x"}},
    {"module": "torch.nn", "class_name": "Linear", "config": {"in_features": 9, "out_features": 9}},
    {"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}},
    {"module": "torchnn.sequential", "class_name": "Sequential", "config": {"layers": []}},
]


def chain():
    first = Normalization()
    first.adapt(np.ones((2, 3)))
    layers = [first, Dense(4, "relu", kernel_regularizer="l2"), BatchNormalization()]
    return Sequential([Input((3,)), *layers, Dropout(0.2), Dense(1, "sigmoid")])


def graph():
    inputs = Input((3,))
    both = Concatenate()([Dense(2)(inputs), F.relu(inputs)[:, 1:] * 2])
    return Model(inputs, Dense(1, "sigmoid")(both))


@cache
def whole(kind, are_weights):
    """The bytes of a file: the length of its header, that as JSON, and the tensors."""
    torch.manual_seed(0)
    model = {"chain": chain, "graph": graph}[kind]()
    model.compile("adam", "bce", metrics=["accuracy", "auc"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m")
        (model.save_weights if are_weights else model.save)(path)
        with open(path, "rb") as file:
            return file.read()


def bytes_changed(rng, data):
    """A few bytes are others, missing, or there twice."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.choice([1, 8, 100, len(data)])]
        elif kind == 2:
            data[at:at] = data[at : at + rng.choice([1, 8, 100])]
        else:
            data[at] ^= 1 << rng.randrange(8)
        if not data:
            break
    return bytes(data)


def values_changed(rng, data):
    """Values of the header, or of our text in it, are others."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    if rng.random() < 0.2:
        changed(rng, header)
    else:
        text = json.loads(header["__metadata__"]["torchnn"])
        for _ in range(rng.choice([1, 1, 2, 4])):
            changed(rng, text)
        header["__metadata__"]["torchnn"] = json.dumps(text)
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data[8 + size :]


def changed(rng, value):
    """Changes something in a list or a dict, at any depth."""
    places = []

    def walk(value):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], (list, dict)):
                walk(value[key])

    walk(value)
    if not places:
        return
    owner, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        other, place = rng.choice(places)
        owner[key] = json.loads(json.dumps(other[place]))
    elif kind == 2 and isinstance(owner, dict):
        owner[rng.choice(["", "units", "$", "class_name", "name"])] = owner.pop(key)
    else:
        owner[key] = copy.deepcopy(rng.choice(STRANGE))


def check(seed):
    rng = random.Random(seed)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    kind, are_weights = rng.choice(["chain", "graph"]), rng.random() < 0.2
    change = rng.choice([bytes_changed, values_changed, values_changed])
    data = change(rng, whole(kind, are_weights))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return weights(rng, kind, file.name) if are_weights else model(file.name)


def model(path):
    refusal = None
    try:
        found = load_model(path)
    except (ValueError, OSError) as error:
        refusal = str(error)
    if refusal is None:
        assert isinstance(found, Model)
        return "loaded"
    assert path in refusal, f"{refusal} does not name the file"
    return "refused"


def weights(rng, kind, path):
    taker = {"chain": chain, "graph": graph}[kind]()
    before = {name: tensor.clone() for name, tensor in taker.state_dict().items()}
    try:
        taker.load_weights(path, skip_mismatch=rng.random() < 0.3)
    except (ValueError, OSError):
        for name, tensor in taker.state_dict().items():
            assert torch.equal(tensor, before[name]), f"{name} has changed"
        return "refused"
    return "loaded"
