"""Callbacks in loops of one's own."""

import pytest
import torch

from torchnn.callbacks import (
    Callback,
    CallbackList,
    EarlyStopping,
    History,
    LambdaCallback,
    ProgbarLogger,
    ReduceLROnPlateau,
)
from torchnn.callbacks._base import HOOKS
from torchnn.layers import Dense
from torchnn.sequential import Sequential


def compiled():
    model = Sequential([Dense(1)])
    model.compile("sgd", "mse")
    return model


def looped(callbacks, losses, model):
    callbacks.on_train_begin()
    for epoch, loss in enumerate(losses):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, logs={"loss": loss})
        if model.stop_training:
            break
    callbacks.on_train_end()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_tells_every_callback_in_order(hook):
    seen = []
    one, other = (
        LambdaCallback(**{hook: lambda *given, i=i: seen.append((i, *given))}) for i in range(2)
    )
    numbers = [3, 4][: {"on_invalid_loss": 2}.get(hook, "epoch" in hook or "batch" in hook)]
    callbacks = CallbackList([one, other])
    logs = {"loss": 1.0}
    getattr(callbacks, hook)(*numbers, logs)
    getattr(callbacks, hook)(*numbers)
    assert seen == [(0, *numbers, logs), (1, *numbers, logs), (0, *numbers, {}), (1, *numbers, {})]


def test_arguments_may_be_named_and_are_checked():
    history = History()
    CallbackList(history).on_epoch_end(epoch=2, logs={"loss": 1.0})
    assert (history.epoch, history.history) == ([2], {"loss": [1.0]})
    with pytest.raises(TypeError, match="missing a required argument: 'epoch'"):
        CallbackList(history).on_epoch_end()


def test_a_loop_of_ones_own_works_like_fit():
    model = compiled()
    stop = EarlyStopping("loss", patience=3)
    plateau = ReduceLROnPlateau("loss", factor=0.5, patience=2)
    callbacks = CallbackList([stop, plateau], add_history=True, model=model)
    looped(callbacks, [1.0] * 9, model)
    assert model.history.history == {
        "loss": [1.0] * 4,
        "learning_rate": pytest.approx([0.01, 0.01, 0.01, 0.005]),
    }
    assert stop.stopped_epoch == 3


def test_a_module_of_pytorch_can_be_the_model():
    model, stop = torch.nn.Linear(1, 1), EarlyStopping("loss", restore_best_weights=True)
    model.stop_training = False
    callbacks = CallbackList([stop], add_history=True, model=model)
    looped(callbacks, [1.0, 2.0, 3.0], model)
    assert model.history.epoch == [0, 1]


def test_what_is_there_is_not_added():
    history, bar = History(), ProgbarLogger()
    callbacks = CallbackList([bar, history], add_history=True, add_progbar=True)
    assert callbacks.callbacks == [bar, history]
    added = CallbackList(None, add_history=True, add_progbar=True).callbacks
    assert [type(each) for each in added] == [History, ProgbarLogger]


def test_a_callback_can_be_appended():
    history = History()
    callbacks = CallbackList()
    callbacks.append(history)
    callbacks.on_epoch_end(0, {"loss": 1.0})
    assert history.epoch == [0]
    with pytest.raises(TypeError, match=r"must hold torchnn\.callbacks\.Callback, got 3"):
        callbacks.append(3)


def test_everyone_knows_model_and_params():
    callback, model = Callback(), compiled()
    callbacks = CallbackList([callback], model=model, epochs=3)
    assert (callback.model, callback.params) == (model, {"epochs": 3})
    callbacks.set_params({"epochs": 5})
    assert (callbacks.model, callbacks.params) == (model, {"epochs": 5})
    assert callback.params == {"epochs": 5}


def test_fit_takes_a_list_as_its_callbacks():
    first, second, third = History(), History(), History()
    callbacks = [CallbackList([first, second]), third]
    for given in (callbacks, callbacks[0]):
        compiled().fit([[1.0]], [1.0], verbose=0, callbacks=given)
    assert [len(each.epoch) for each in (first, second, third)] == [2, 2, 1]


def test_a_line_an_epoch_is_printed(capsys):
    model = compiled()
    callbacks = CallbackList(add_progbar=True, model=model, epochs=2, verbose=1)
    looped(callbacks, [0.5, torch.tensor(0.0001)], model)
    callbacks.on_test_end({"loss": 2, "note": "x"})
    said = "Epoch 1/2 - loss: 0.5000\nEpoch 2/2 - loss: 1.0000e-04\n"
    assert capsys.readouterr().out == f"{said}Evaluate - loss: 2.0000 - note: x\n"
    callbacks.set_params({"verbose": 0})
    looped(callbacks, [0.5], model)
    assert capsys.readouterr().out == ""


def test_fit_shows_one_line_an_epoch_all_the_same(capsys):
    compiled().fit([[1.0]], [1.0], callbacks=[ProgbarLogger()])
    assert len(capsys.readouterr().out.splitlines()) == 1
    compiled().fit([[1.0]], [1.0], verbose=0, callbacks=[ProgbarLogger("samples")])
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"^count_mode must be one of steps, samples, got 'rows'$"):
        ProgbarLogger("rows")
