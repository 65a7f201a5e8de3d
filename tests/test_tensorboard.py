"""Files for TensorBoard, read again."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

from torchnn import optimizers
from torchnn.callbacks import LambdaCallback, TensorBoard
from torchnn.callbacks._base import CallbackList
from torchnn.layers import Concatenate, Dense, Input
from torchnn.model import Model
from torchnn.sequential import Sequential

X, Y = np.arange(8.0)[:, None], np.arange(8.0)


def compiled(*layers):
    model = Sequential(layers or [Input((1,)), Dense(1)], name="line")
    model.compile(optimizers.SGD(0.001), "mse", metrics=["mae"])
    return model


def fit(callback, model=None, **options):
    model = model or compiled()
    options = {"epochs": 3, "batch_size": 2, "verbose": 0, "callbacks": callback, **options}
    return model.fit(X, Y, **options)


def read(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder), size_guidance={"histograms": 0})
    found.Reload()
    return found


def scalars(folder):
    found = read(folder)
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


@pytest.fixture
def logs(tmp_path):
    pytest.importorskip("tensorboard")
    return tmp_path / "logs"


def test_an_epoch_is_written_under_kerass_names(logs):
    history = fit(TensorBoard(logs), validation_data=(X[:4], Y[:4])).history

    def epochs(name):
        return list(enumerate(history[name]))

    assert scalars(logs / "train") == {
        "epoch_loss": epochs("loss"),
        "epoch_mae": epochs("mae"),
        "epoch_learning_rate": [(epoch, 0.001) for epoch in range(3)],
    }
    steps = [4, 8, 12]
    assert scalars(logs / "validation") == {
        "epoch_loss": epochs("val_loss"),
        "epoch_mae": epochs("val_mae"),
        "evaluation_loss_vs_iterations": list(zip(steps, history["val_loss"], strict=True)),
        "evaluation_mae_vs_iterations": list(zip(steps, history["val_mae"], strict=True)),
    }


@pytest.mark.parametrize(
    ("update_freq", "steps"), [("epoch", []), ("batch", range(1, 13)), (5, [5, 10])]
)
def test_batches_are_written_as_often_as_is_asked(logs, update_freq, steps):
    means = []
    peek = LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    fit([peek, TensorBoard(logs, update_freq=update_freq)])
    found = scalars(logs / "train").get("batch_loss", [])
    assert found == [(step, means[step - 1]) for step in steps]


@pytest.mark.parametrize(("update_freq", "is_told"), [("epoch", False), (2, True)])
def test_batches_are_looked_at_only_if_they_are_written(logs, update_freq, is_told):
    callbacks = CallbackList(TensorBoard(logs, update_freq=update_freq))
    assert callbacks.listens("on_train_batch_begin", "on_train_batch_end") is is_told
    assert not callbacks.listens("on_test_batch_end", "on_predict_batch_end")


def test_steps_a_second_are_written(logs):
    fit(TensorBoard(logs, write_steps_per_second=True, update_freq=4))
    found = read(logs / "train")
    for tag, steps in [("epoch_steps_per_second", [0, 1, 2]), ("batch_steps_per_second", [4, 8])]:
        events = found.Scalars(tag)
        assert [event.step for event in events][: len(steps)] == steps
        assert min(event.value for event in events) > 0


def test_histograms_and_images_are_written_every_so_many_epochs(logs):
    model = compiled(Input((1,)), Dense(3), torch.nn.Linear(3, 1))
    fit(TensorBoard(logs, histogram_freq=2, write_images=True), model)
    found = read(logs / "train")
    paths = ["line/dense/kernel", "line/dense/bias", "line/linear/weight", "line/linear/bias"]
    assert found.Tags()["histograms"] == [f"{path}/histogram" for path in paths]
    assert found.Tags()["images"] == [f"{path}/image" for path in paths[:3]]  # of several numbers
    first, last = found.Histograms("line/dense/kernel/histogram")
    assert (first.step, last.step) == (0, 2)
    kernel = model.layers[0].kernel.numpy()
    assert (last.histogram_value.num, last.histogram_value.min) == (3, pytest.approx(kernel.min()))
    image = found.Images("line/dense/kernel/image")[0]
    assert (image.width, image.height) == (3, 1)


def test_weights_that_are_no_numbers_are_left_out(logs):
    model = compiled()
    model.set_weights([[[np.nan]], [1.0]])
    callback = TensorBoard(logs, histogram_freq=1)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"loss": 1.0})
    callback.on_train_end()
    assert read(logs / "train").Tags()["histograms"] == ["line/dense/bias/histogram"]


def graph(folder):
    proto = pytest.importorskip("tensorboard.compat.proto.graph_pb2").GraphDef()
    proto.ParseFromString(read(folder)._graph)
    return {node.name: (node.op, list(node.input)) for node in proto.node}


def test_the_layers_of_a_chain_are_shown(logs):
    fit(TensorBoard(logs), compiled(Dense(2), Dense(1)))
    assert graph(logs / "train") == {
        "line/dense": ("Dense", []),
        "line/dense_1": ("Dense", ["line/dense"]),
    }


def test_the_layers_of_a_graph_are_shown(logs):
    x = Input((1,), name="x")
    y = Dense(1)(Concatenate()([x, Dense(2)(x)]))
    model = Model(x, y, name="net")
    model.compile("sgd", "mse")
    fit(TensorBoard(logs), model)
    assert graph(logs / "train") == {
        "net/x": ("Input", []),
        "net/dense": ("Dense", ["net/x"]),
        "net/concatenate": ("Concatenate", ["net/x", "net/dense"]),
        "net/dense_1": ("Dense", ["net/concatenate"]),
    }


def test_no_graph_is_shown_if_none_is_known_or_wanted(logs):
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(1)

        def forward(self, x):
            return self.dense(x)

    own = Own()
    own.compile("sgd", "mse")
    fit(TensorBoard(logs / "own"), own)
    fit(TensorBoard(logs / "none", write_graph=False))
    assert not read(logs / "own" / "train").Tags()["graph"]
    assert not read(logs / "none" / "train").Tags()["graph"]


def test_what_is_no_number_is_left_out(logs):
    fit([LambdaCallback(on_epoch_end=lambda e, logs: logs.update(a="x", b=2)), TensorBoard(logs)])
    assert {"epoch_b"} == {"epoch_a", "epoch_b"} & {*scalars(logs / "train")}


def test_an_evaluation_is_written(logs):
    model, callback = compiled(), TensorBoard(logs)
    loss, _ = model.evaluate(X, Y, verbose=0, callbacks=callback)
    assert scalars(logs / "validation")["evaluation_loss_vs_iterations"] == [(0, loss)]
    assert callback._writers == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fit_that_fails_closes_the_files(logs, error):
    def fail(epoch, logs):
        raise error

    callback = TensorBoard(logs)
    with pytest.raises(error):
        fit([callback, LambdaCallback(on_epoch_end=fail)])
    assert callback._writers == {}
    assert len(scalars(logs / "train")["epoch_loss"]) == 1


def test_a_folder_that_cannot_be_made_is_told_before_training(logs):
    logs.write_text("a file")
    model = compiled()
    with pytest.raises(OSError, match="logs"):
        fit(TensorBoard(logs), model)
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_write_by_themselves(logs, copied):
    first = TensorBoard(logs, update_freq=1)
    first.set_model(compiled())
    first.on_train_begin()
    first.on_train_batch_end(0, {"loss": 1.0})
    second = copied(first)
    second.on_train_batch_end(1, {"loss": 2.0})
    assert (first._batches, second._batches) == (1, 2)
    first.on_train_end()
    second.on_train_end()
    assert scalars(logs / "train")["batch_loss"] == [(1, 1), (2, 2)]


def test_a_state_dict_lets_the_batches_count_on(logs):
    first, second = (TensorBoard(logs, update_freq=1, write_graph=False) for _ in range(2))
    for callback in (first, second):
        callback.on_train_begin()
        if callback is second:
            callback.load_state_dict(first.state_dict())
        callback.on_train_batch_end(0, {"loss": 1.0})
        callback.on_train_end()
    assert [step for step, _ in scalars(logs / "train")["batch_loss"]] == [1, 2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"log_dir": 3}, TypeError, "log_dir must be a path, got 3"),
        ({"histogram_freq": -1}, ValueError, "histogram_freq must be a non-negative integer.*"),
        ({"write_graph": None}, TypeError, "write_graph must be True or False, got None"),
        ({"update_freq": "step"}, ValueError, 'update_freq must be "epoch", "batch" or .*'),
        ({"update_freq": 0}, ValueError, "update_freq must be a positive integer, got 0"),
        ({"profile_batch": (2, 4)}, ValueError, r"profile_batch must be 0, got \(2, 4\): .*"),
        ({"embeddings_freq": 1}, ValueError, "embeddings_freq must be 0: there are no layers of.*"),
    ],
)
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        TensorBoard(**options)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install torchnn-fused\[tensorboard\]$"):
        TensorBoard()
