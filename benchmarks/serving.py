"""How long one row takes: a model called, predict, and what is exported; all in turns.

python -m benchmarks.serving --save serving-cpu
"""

import argparse
import tempfile
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import harness
from torchnn import Sequential
from torchnn.layers import Dense, Input

WIDTHS = (400, 25, 25, 1)


def ways(folder: str) -> dict[str, Callable[[], object]]:
    """What answers one row."""
    torch.manual_seed(0)
    model = Sequential([Input(WIDTHS[:1]), *(Dense(units, "sigmoid") for units in WIDTHS[1:])])
    model.compile(loss="binary_crossentropy")
    row = np.random.default_rng(0).random((1, WIDTHS[0]), np.float32)
    tensor = torch.from_numpy(row)
    eager = torch.nn.Sequential(
        *(
            module
            for layer in model.layers
            for module in (torch.nn.Linear(layer.in_features, layer.units), torch.nn.Sigmoid())
        )
    )
    found: dict[str, Callable[[], object]] = {
        "model(tensor)": lambda: model(tensor),
        "model(array)": lambda: model(row),
        "predict(array, verbose=0)": lambda: model.predict(row, verbose=0),
        "predict_on_batch(array)": lambda: model.predict_on_batch(row),
        "nn.Sequential(tensor)": lambda: eager(tensor),
    }
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (what export needs)
    except ModuleNotFoundError as error:
        print(f"ONNX is left out, since {error.name} is missing")
        return found
    model.export(f"{folder}/model.onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", settings)
    name = session.get_inputs()[0].name
    return {**found, "onnxruntime": lambda: session.run(None, {name: row})}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--save", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        found = harness.measure(ways(folder), options.rounds)
    lines = [[way, *(f"{us:.0f}" for us in (t.median, t.p20, t.p80))] for way, t in found.items()]
    harness.show("one row, microseconds", ["way", "median", "p20", "p80"], lines)
    if options.save:
        rows = [{"way": way, "us": timing} for way, timing in found.items()]
        print(harness.save(options.save, rows, widths=WIDTHS, rounds=options.rounds))


if __name__ == "__main__":
    main()
