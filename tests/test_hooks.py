"""Who is told what, and who is not asked."""

import inspect

import pytest

from torchnn.callbacks._base import HOOKS, Callback, CallbackList


class Recorder(Callback):
    """Notes every epoch hook."""

    def __init__(self):
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch, logs))


def test_hooks_are_called_in_order():
    first, second = Recorder(), Recorder()
    second.calls = first.calls
    callbacks = CallbackList([first, second])
    callbacks("on_epoch_begin", 3)
    callbacks("on_epoch_end", 3, {"loss": 1.0})
    assert first.calls == [("begin", 3)] * 2 + [("end", 3, {"loss": 1.0})] * 2


def test_a_hook_that_nobody_overrides_has_no_listeners():
    callbacks = CallbackList([Recorder()])
    assert callbacks.listens("on_epoch_end", "on_train_batch_end")
    assert not callbacks.listens("on_train_batch_begin", "on_train_batch_end")


def test_a_function_put_on_an_instance_is_a_hook():
    callback, seen = Callback(), []
    callback.on_train_batch_end = lambda batch, logs=None: seen.append(batch)
    callbacks = CallbackList([callback])
    assert callbacks.listens("on_train_batch_end")
    callbacks("on_train_batch_end", 7)
    assert seen == [7]


def test_on_batch_end_is_another_name_of_on_train_batch_end():
    class Old(Callback):
        seen = ()

        def on_batch_end(self, batch, logs=None):
            self.seen = (batch, logs)

    old = Old()
    CallbackList(old)("on_train_batch_end", 2, {"loss": 0.5})
    assert old.seen == (2, {"loss": 0.5})


def test_hooks_are_kerass_and_one_more():
    kinds = ("train", "test", "predict", "epoch", "batch")
    kinds += tuple(f"{kind}_batch" for kind in kinds[:3])
    expected = {f"on_{kind}_{end}" for kind in kinds for end in ("begin", "end")}
    assert set(HOOKS) == expected | {"on_invalid_loss"}


@pytest.mark.parametrize("hook", HOOKS)
def test_an_empty_hook_does_nothing(hook):
    function = getattr(Callback(), hook)
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    assert function(*[0] * len(needed)) is None


def test_everyone_is_introduced_to_model_and_parameters():
    callback = Callback()
    CallbackList([callback]).introduce("the model", epochs=3)
    assert (callback.model, callback.params) == ("the model", {"epochs": 3})


def test_a_callback_has_nothing_to_remember_unless_it_says_so():
    callback = Callback()
    assert callback.state_dict() == {}
    callback.load_state_dict({})


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_callbacks_are_none(value):
    assert CallbackList(value).callbacks == []


def test_a_callback_needs_no_list():
    callback = Recorder()
    assert CallbackList(callback).callbacks == [callback]
    assert CallbackList(CallbackList(callback)).callbacks == [callback]
