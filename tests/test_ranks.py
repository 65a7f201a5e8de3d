"""Two processes train one model as one process does; what is wrong with one is an error of both.

Started as a program, by the fixture, this file is one of the two. Each goes through all cases, so
that they start once: those in SAME are also run here, by one process, with the same results.
"""

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Model, Sequential, losses, metrics, optimizers
from torchnn.callbacks import (
    BackupAndRestore,
    Callback,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
)
from torchnn.layers import BatchNormalization, Dense, Dropout, Input, Normalization
from torchnn.utils import PyDataset

ROOT = Path(__file__).resolve().parent.parent
RANK = int(os.environ.get("RANK", 0))
SAME = {}  # cases that give the same results in one process
ALONE = {}  # cases of two ranks, of which each test knows what comes out


def same(function):
    SAME[function.__name__] = function
    return function


def alone(function):
    ALONE[function.__name__] = function
    return function


def data(rows=103, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.randn(rows, 5)
    return x, (x[:, :1] + rng.randn(rows, 1) > 0).astype(float)


def network(*more, units=1, activation="sigmoid", **options):
    torch.manual_seed(7 + RANK)  # weights and orders are rank 0's
    return Sequential([Dense(6, "tanh", **options), *more, Dense(units, activation)])


def learnt(model, history, x, y, **options):
    """What training has left behind."""
    slots = getattr(model.optimizer, "slots", {})  # PyTorch's optimizers have none
    return {
        "weights": model.get_weights(),
        "history": history.history,
        "slots": [tensor.cpu().numpy() for tensors in slots.values() for tensor in tensors],
        "evaluated": model.evaluate(x, y, verbose=0, return_dict=True, **options),
        "predicted": model.predict(x, verbose=0),
    }


def trained(model, optimizer="adam", loss="binary_crossentropy", metrics=(), epochs=3, **options):
    x, y = data()
    model.compile(optimizer, loss=loss, metrics=list(metrics))
    options = {"batch_size": 17, "verbose": 0} | options  # the last batch is a single row
    history = model.fit(x, y, epochs=epochs, **options)
    return learnt(model, history, x, y)


for name in sorted({kind.__name__: kind for kind in optimizers.NAMES.values()}):
    SAME[f"optimizer {name}"] = lambda name=name: trained(network(), getattr(optimizers, name)())
for limit in ("clipnorm", "clipvalue", "global_clipnorm"):
    SAME[limit] = lambda limit=limit: trained(network(), optimizers.Adam(**{limit: 0.01}))
for name in ("optimizer of PyTorch", "optimizer with momentum"):
    make = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    chosen = make if "PyTorch" in name else partial(optimizers.SGD, 0.1, momentum=0.9)
    SAME[name] = lambda make=chosen, own="PyTorch" not in name: trained(
        network(), make() if own else make
    )


@same
def backup_that_a_fit_goes_on_from():
    folder = Path(tempfile.mkdtemp())  # rank 0 writes, and reads for all
    x, y = data()

    def fit(last):
        def stop(epoch, logs):
            if epoch == last:
                raise ValueError("enough")

        model = network()
        model.compile("adam", "bce", metrics=["auc"])
        backup = [BackupAndRestore(folder / "backup"), LambdaCallback(on_epoch_end=stop)]
        history = model.fit(x, y, batch_size=17, epochs=5, verbose=0, callbacks=backup)
        return learnt(model, history, x, y)

    with pytest.raises(ValueError, match="enough"):
        fit(last=3)
    return fit(last=None)


@same
def paces_that_each_rank_has_found_out_by_itself():
    model = network()
    model.compile("sgd", "bce")
    kinds = ("FusedEngine on cpu", "AutogradEngine on cpu")
    model._recipe.paces = {kind: {17: 2 + RANK} for kind in kinds}
    x, y = data()
    history = model.fit(x, y, batch_size=17, epochs=2, verbose=0)
    return learnt(model, history, x, y)


@same
def penalties_count_once():
    options = {
        "kernel_regularizer": "l2",
        "activity_regularizer": "l1",
        "kernel_constraint": "max_norm",
    }
    return trained(network(**options))


@same
def exact_metrics():
    def spread(y_true, y_pred):
        return y_pred.max() - y_pred.min()  # of a whole batch

    measured = [
        "accuracy",
        metrics.AUC(),
        metrics.Precision(),
        metrics.F1Score(threshold=0.5),
        spread,
    ]
    return trained(network(), metrics=measured, validation_split=0.2)


@same
def sample_weights():
    weights = np.linspace(0, 2, 103)
    validation = *data(31, seed=1), np.linspace(1, 3, 31)
    return trained(network(), sample_weight=weights, validation_data=validation, validation_freq=2)


@same
def class_weights():
    return trained(network(), class_weight={0: 1.0, 1: 5.0}, validation_split=0.3)


@same
def sums_of_losses():
    return trained(network(), loss=losses.BinaryCrossentropy(reduction="sum"))


def of_classes(loss, **options):
    x, _ = data()
    labels = np.arange(len(x)) % 3
    labels[::5] = 1  # so that ranks have different numbers of them
    model = network(units=3, activation="linear")
    model.compile("sgd", loss=loss, metrics=["accuracy"])
    history = model.fit(x, labels, epochs=2, batch_size=16, verbose=0, **options)
    return learnt(model, history, x, labels)


@same
def classes_that_are_ignored():
    return of_classes(losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1))


@same
def weighted_classes_of_pytorch():
    return of_classes(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0])))


@same
def a_loss_of_whole_batches():
    def loss(y_true, y_pred):
        return (y_true - y_pred).square().mean() / (y_pred.std(correction=0) + 1)

    return trained(network(), loss=loss)


@same
def batch_normalization():
    return trained(network(BatchNormalization(), Dense(4, "relu"), BatchNormalization()))


@same
def in_order_and_on():
    model, (x, y) = network(), data()
    model.compile("adam", loss="mse")
    model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0)
    history = model.fit(x, y, batch_size=20, epochs=4, verbose=0, steps_per_epoch=4)
    return learnt(model, history, x, y)


@same
def several_inputs_and_outputs():
    torch.manual_seed(7 + RANK)
    left, right = Input((2,)), Input((3,))
    both = Dense(4, "relu")(left), Dense(4, "tanh")(right)
    outputs = [Dense(1, "sigmoid", name="a")(both[0]), Dense(2, name="b")(both[1])]
    model = Model([left, right], outputs)
    x, y = data()
    model.compile("adam", loss=["binary_crossentropy", "mse"], metrics=[["accuracy"], ["mae"]])
    history = model.fit([x[:, :2], x[:, 2:]], [y, x[:, :2]], epochs=2, verbose=0)
    return {"weights": model.get_weights(), "history": history.history}


class Batches(PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, number):
        return tuple(part[number * 11 : (number + 1) * 11] for part in data())


@same
def batches_by_number():
    x, y = data()
    model = network()
    model.compile("adam", loss="mse", metrics=["mae"])
    history = model.fit(Batches(), epochs=2, verbose=0, validation_data=Batches())
    return learnt(model, history, x, y)


@same
def a_loader_and_a_generator():
    rows = torch.utils.data.TensorDataset(*map(torch.tensor, data()))
    order = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(rows, batch_size=9, shuffle=True, generator=order)
    x, y = data()
    model = network()
    model.compile("adam", loss="mse")
    model.fit(loader, epochs=2, verbose=0)
    history = model.fit((batch for batch in loader), verbose=0)
    return learnt(model, history, x, y)


@same
def callbacks_that_steer():
    stopping = EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    falling = LearningRateScheduler(lambda epoch, rate: 0.5 / (epoch + 1))

    class Halved(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["half"] = logs["loss"] / 2
            if epoch == 1:
                with torch.no_grad():
                    self.model.layers[0].weight.mul_(0.5)

    options = {"validation_data": data(20, seed=2), "callbacks": [stopping, falling, Halved()]}
    return trained(network(), "sgd", epochs=40, **options)


@same
def a_callback_of_batches():
    class Steps(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4 and logs["loss"] > 0:
                self.model.stop_training = True

    return trained(network(), callbacks=Steps(), epochs=5)


if torch.cuda.is_available():

    @same
    def on_a_gpu():
        return trained(network(BatchNormalization()).to("cuda"), validation_split=0.2)


class Open(Model):
    """With weights that are not used, and others that do not learn."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7 + RANK)
        self.used = Dense(1, "sigmoid", in_features=5)
        self.unused = Dense(3, in_features=5)
        self.frozen = Dense(5, in_features=5)
        self.frozen.trainable = False

    def forward(self, x):
        return self.used(self.frozen(x))


@same
def weights_that_are_not_used():
    return trained(Open())


@same
def a_state_that_rank_0_alone_has():
    model, (x, y) = network(), data()
    model.compile("adam", loss="mse")
    model.fit(x, y, verbose=0, epochs=2)
    if RANK == 1:
        model.optimizer.iterations = 99
        model.optimizer.learning_rate = 0.001
        for slot in model.optimizer.slots.values():
            slot[0].add_(1)
    history = model.fit(x, y, verbose=0, epochs=4)
    return learnt(model, history, x, y)


def error_of(function):
    """The kind and the text of what a function raises."""
    try:
        function()
    except BaseException as error:
        return type(error).__name__, str(error)
    return None


def fitted(x, y=None, callbacks=None, engine="auto", optimizer="sgd", **options):
    model = network()
    model.compile(optimizer, loss="mse", engine=engine)
    before = [w.copy() for w in model.get_weights()] if model.built else None
    error = error_of(lambda: model.fit(x, y, verbose=0, callbacks=callbacks, **options))
    trained = model.optimizer.iterations
    return error, trained, before


@alone
def wrong_arguments_of_one_rank():
    x, y = data()
    bad = x.copy()
    bad[3, 1] = np.nan
    return [
        fitted(bad if RANK == 1 else x, y)[:2],
        fitted(x, y, epochs=-1 if RANK == 1 else 1)[:2],
        fitted(x, y, callbacks=3 if RANK == 0 else None)[:2],
        fitted(x, y)[:2],
    ]


@alone
def different_data():
    x, y = data()
    shuffled = np.random.RandomState(1).permutation(len(x))
    cases = [
        (x[: 100 - RANK], y[: 100 - RANK]),
        (x[shuffled], y[shuffled]) if RANK else (x, y),
        (x, y + RANK),
    ]
    found = [fitted(*case)[:2] for case in cases]
    found.append(fitted(x, y, batch_size=32 + RANK)[:2])
    found.append(fitted(x, y, validation_data=(x, y) if RANK else None)[:2])
    found.append(fitted(x, y, optimizer=optimizers.SGD(0.1 * (RANK + 1)))[:2])
    return [*found, fitted(x, y, engine="fused")[:2]]


@alone
def different_batches():
    x, y = data()

    def batches(count, fails_at=None):
        for i in range(count):
            if i == fails_at:
                raise OSError("no such file")
            yield (
                x[i : i + 6] + (RANK if i == 3 and fails_at is None and count == 7 else 0),
                y[i : i + 6],
            )

    return [
        fitted(batches(5 + RANK))[:2],
        fitted(batches(7))[:2],
        fitted(batches(6, fails_at=2 if RANK else 99))[:2],
    ]


@alone
def errors_of_callbacks():
    x, y = data()

    def fail(*_):
        raise ArithmeticError("no sum")

    def stop(epoch, logs):
        signal.raise_signal(signal.SIGINT)

    return [fitted(x, y, callbacks=LambdaCallback(on_epoch_end=each))[:2] for each in (fail, stop)]


@alone
def changes_that_no_other_rank_can_follow():
    (x, y), model = data(), network(Dropout(0.5))
    changes = {
        "trainable": lambda *_: setattr(model.layers[0], "trainable", False),
        "rate": lambda *_: setattr(model.layers[1], "rate", 0.1),
        "momentum": lambda *_: setattr(model.optimizer, "momentum", 0.9),
        "compile": lambda *_: model.compile("adam", loss="mse"),
        "attribute": lambda *_: setattr(model, "mine", 1),
    }
    found = {}
    for name, change in changes.items():
        model.trainable = True
        model.compile(optimizers.SGD(), loss="mse")
        listener = LambdaCallback(on_epoch_begin=change)
        found[name] = error_of(lambda told=listener: model.fit(x, y, verbose=0, callbacks=told))
    return found


@alone
def interrupted():
    x, y = data()

    def batches():
        for i in range(9):
            if RANK == 1 and i == 4:
                signal.raise_signal(signal.SIGINT)
            yield x[i : i + 6], y[i : i + 6]

    return fitted(batches())[:2]


@alone
def what_rank_0_alone_does():
    x, y = data()
    told = []
    model = network()
    model.compile("sgd", loss="mse")

    def look(epoch, logs):
        told.append(model.evaluate(x, y, verbose=0))
        other = network()
        other.compile("sgd", loss="mse")
        other.fit(x, y, verbose=0, epochs=2, callbacks=LambdaCallback(on_epoch_end=fit_once))

    def fit_once(epoch, logs):
        fitted(x, y)

    own = LambdaCallback(on_epoch_end=look) if RANK == 0 else None
    model.fit(x, y, epochs=2, callbacks=own, verbose=2)
    if RANK == 1:
        told.append(model.predict(x, verbose=0).shape)
    return told


@alone
def dropout():
    x, y = data(rows=16)
    before = torch.get_rng_state()

    def once():
        masks = []
        model = network(Dropout(0.5))
        model.predict(x, verbose=0)  # to build it, which draws weights
        model.layers[1].register_forward_hook(lambda _, given, out: masks.append(out == 0))
        model.compile("sgd", loss="mse")
        state = torch.get_rng_state()
        model.fit(x, y, batch_size=8, verbose=0, epochs=2)
        assert torch.equal(torch.get_rng_state(), state)
        steps = [mask.numpy() for mask in masks if len(mask) == 4]  # a rank's share
        return steps, model.get_weights()

    first, second = once(), once()
    torch.set_rng_state(before)
    return first, second


@alone
def batch_normalization_of_pytorch():
    model = network(nn.BatchNorm1d(6), Normalization(mean=np.zeros(6), variance=np.ones(6)))
    x, y = data(rows=32)
    model.compile("sgd", loss="mse")
    model.fit(x, y, batch_size=16, verbose=0)
    return [t.numpy() for t in model.state_dict().values()]


@alone
def summary():
    model, lines = network(), []
    model.compile("sgd", loss="mse")
    model.summary(print_fn=lines.append, line_length=200)
    return lines


@alone
def a_rank_that_fails_in_a_step():
    """The last one: it leaves the other one alone."""
    x, y = data()
    model = network()

    def fail(*_):
        if RANK == 1 and model.optimizer.iterations == 2:
            raise MemoryError("no room")

    model.layers[0].register_forward_hook(fail)
    model.compile("sgd", loss="mse")
    told = []
    listener = LambdaCallback(on_train_end=lambda logs: told.append("end"))
    error = error_of(lambda: model.fit(x, y, verbose=0, callbacks=listener))
    return error[0], model.optimizer.iterations, told


def run_cases(cases):
    """Returns what each case gives, or the traceback of what it raises."""
    found = {}
    for name, case in cases.items():
        try:
            found[name] = case()
        except Exception:
            found[name] = traceback.format_exc()
    return found


def main(folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may let jobs ignore
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=RANK,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    found = run_cases(SAME | ALONE)
    (Path(folder) / f"{RANK}.pickle").write_bytes(pickle.dumps(found))


def environment(**more):
    """What a program needs to find the package wherever it runs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two ranks found, each by the names of the cases, and what they printed."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "error::FutureWarning", __file__, str(folder)]
    both = [
        subprocess.Popen(
            command,
            env=environment(RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed, errors = zip(*(each.communicate(timeout=600) for each in both), strict=True)
    assert [process.returncode for process in both] == [0, 0], "".join(errors)
    found = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]
    return *found, printed


@pytest.fixture
def in_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agree(ours, expected, **tolerance):
    """Raises unless the numbers in dicts and lists are the same."""
    if isinstance(expected, dict):
        assert list(ours) == list(expected)
        ours, expected = list(ours.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(ours) == len(expected)
        for pair in zip(ours, expected, strict=True):
            agree(*pair, **tolerance)
    else:
        np.testing.assert_allclose(ours, expected, **tolerance)


@pytest.mark.parametrize("case", SAME)
def test_two_ranks_do_what_one_process_does(case, ranks, in_double):
    first, second, _ = ranks
    assert not isinstance(first[case], str), first[case]
    agree(second[case], first[case], rtol=0, atol=0)
    agree(first[case], SAME[case](), rtol=1e-10, atol=1e-10)


@pytest.fixture
def found(request, ranks):
    """What the case of the test's name gave on both ranks."""
    first, second = (rank[request.param] for rank in ranks[:2])
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    return first, second


def of(case):
    return pytest.mark.parametrize("found", [case.__name__], indirect=True)


@of(wrong_arguments_of_one_rank)
def test_what_is_wrong_on_one_rank_is_an_error_on_both_and_nothing_is_trained(found):
    first, second = found
    number = "epochs must be a non-negative integer, got -1"
    assert [steps for _, steps in first + second] == [0, 0, 0, 4] * 2
    kinds = [error and error[0] for error, _ in first]
    assert kinds == ["ValueError", "ValueError", "TypeError", None]
    assert [error and error[0] for error, _ in second] == kinds
    assert first[0][0][1] == "rank 1: x must be finite in float64, got nan at row 3"
    assert (first[1][0][1], second[1][0][1]) == (f"rank 1: {number}", number)
    assert second[2][0][1].startswith("rank 0: callbacks must hold ")


@of(different_data)
def test_ranks_must_pass_the_same_data_and_settings(found):
    messages = [error[1] for error, _ in found[0]]
    assert found[0] == found[1]
    assert messages[0] == (
        "the shape of x must be the same on every rank, got (100, 5) on rank 0 and (99, 5) on "
        "rank 1: every rank passes the same arguments, with all of the data in one order, or the "
        "same batches, of a DataLoader without a DistributedSampler; fit shares out each batch "
        "itself"
    )
    for message in messages[1:3]:
        assert message.startswith("the first and the last rows must be the same on every rank, ")
    assert "batch_size must be the same on every rank, got 32 on rank 0 and 33" in messages[3]
    assert "validation_data must be the same on every rank, got none on rank 0" in messages[4]
    assert "learning_rate must be the same on every rank, got 0.1 on rank 0 and 0.2" in messages[5]
    assert messages[6] == 'engine="fused" cannot train this model, since 2 processes train together'
    assert {steps for _, steps in found[0]} == {0}


@of(different_batches)
def test_ranks_must_be_given_the_same_batches_and_as_many(found):
    (more, others, fails), elsewhere = found
    for error, _ in (more, others):
        assert error[0] == "ValueError"
        assert error[1].startswith("x must give every rank the same batches, and as many: ")
    assert (more[1], others[1]) == (5, 3)
    assert fails == (("RuntimeError", "rank 1: OSError: no such file"), 2)
    assert elsewhere == [more, others, (("OSError", "no such file"), 2)]


@of(errors_of_callbacks)
def test_what_callbacks_of_rank_0_raise_is_raised_on_both(found):
    (fails, stops), elsewhere = found
    assert fails == (("ArithmeticError", "no sum"), 4)
    assert elsewhere[0] == (("RuntimeError", "rank 0: ArithmeticError: no sum"), 4)
    assert (stops[0][0], elsewhere[1][0][0]) == ("KeyboardInterrupt", "KeyboardInterrupt")


@of(changes_that_no_other_rank_can_follow)
def test_callbacks_may_not_change_what_no_other_rank_can_follow(found):
    for changes in found:
        assert changes.pop("attribute") is None
        for kind, message in changes.values():
            assert kind == "RuntimeError"
            assert "has changed the model, its settings or which of its weights learn" in message


@of(interrupted)
def test_an_interrupt_of_one_rank_stops_both_after_the_same_step(found):
    (first, steps), (second, others) = found
    assert (first[0], second[0]) == ("KeyboardInterrupt", "KeyboardInterrupt")
    assert steps == others == 4


@of(what_rank_0_alone_does)
def test_callbacks_are_those_of_rank_0_which_may_evaluate_and_fit_by_itself(found, ranks):
    first, second = found
    assert len(first) == 2
    assert second == [(103, 1)]
    printed, nothing = ranks[2]
    assert printed.count("Epoch") == 2
    assert nothing == ""


@of(dropout)
def test_no_two_ranks_drop_the_same_and_one_seed_drops_the_same_again(found):
    (first, again), (second, _) = found
    assert len(first[0]) == 4
    agree(list(first), list(again), rtol=0, atol=0)
    assert not any(map(np.array_equal, first[0], second[0]))
    agree(first[1], second[1], rtol=0, atol=0)


@of(batch_normalization_of_pytorch)
def test_buffers_of_layers_that_see_their_share_alone_are_rank_0s(found):
    agree(found[0], found[1], rtol=0, atol=0)


@of(summary)
def test_the_summary_says_why_they_train_step_by_step(found):
    reason = "since 2 processes train together"
    assert f"autograd (PyTorch, one step after the other), {reason}" in found[0][0]


@of(a_rank_that_fails_in_a_step)
def test_a_rank_that_fails_in_a_step_does_not_leave_the_other_waiting(found):
    assert found[1] == ("MemoryError", 2, [])
    assert found[0][0] in ("RuntimeError", "DistBackendError")
    assert found[0][1:] == (2, ["end"])


def test_the_program_of_the_document_runs_under_torchrun_as_it_does_alone(tmp_path):
    pytest.importorskip("sklearn")
    text = (ROOT / "docs" / "distributed.md").read_text()
    blocks = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    program, printed = blocks.groups()
    (tmp_path / "train.py").write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py"]
    options = {"cwd": tmp_path, "env": environment(OMP_NUM_THREADS="1"), "timeout": 300}
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    np.testing.assert_allclose(numbers_in(done.stdout), numbers_in(printed), atol=0.01)
    assert list(torch.load(tmp_path / "digits.pt")) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def numbers_in(printed):
    """Those of the lines, but for times."""
    return [list(map(float, re.findall(r"\d\.\d{4}", line))) for line in printed.splitlines()]


if __name__ == "__main__":
    main(sys.argv[1])
