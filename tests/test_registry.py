"""torchnn.registry: names to objects, and its error messages."""

import pytest

from torchnn import registry


class Square:
    pass


TABLE = {"square": Square, "big_circle": list}


def resolve(value):
    return registry.resolve("shape", value, TABLE, accept=lambda v: isinstance(v, Square))


@pytest.mark.parametrize("name", ["square", "Square", "SQUARE"])
def test_a_name_makes_a_new_object_each_time(name):
    assert isinstance(resolve(name), Square)
    assert resolve(name) is not resolve(name)


@pytest.mark.parametrize("name", ["big_circle", "BigCircle", "bigcircle"])
def test_names_ignore_capitals_and_underscores(name):
    assert registry.find("shape", name, TABLE) == "big_circle"


def test_an_object_is_returned_as_it_is():
    square = Square()
    assert resolve(square) is square


def test_an_unknown_name_gets_a_suggestion_and_the_list():
    message = r"^unknown shape 'sqare': did you mean 'square'\? Known: square, big_circle$"
    with pytest.raises(ValueError, match=message):
        resolve("sqare")


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(ValueError, match=r"^unknown shape 'xyz'\. Known: square, big_circle$"):
        resolve("xyz")


def test_a_class_is_told_to_be_instantiated():
    message = r"^shape must be an instance, got the class Square: write Square\(\)$"
    with pytest.raises(TypeError, match=message):
        resolve(Square)


@pytest.mark.parametrize("value", [None, 3, ["square"]])
def test_other_objects_are_refused(value):
    with pytest.raises(TypeError, match=r"^shape must be an object or one of square, big_circle; "):
        resolve(value)
