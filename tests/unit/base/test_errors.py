"""The vocabulary: every class carries a message and, if there is any, one line of advice."""

from __future__ import annotations

import inspect

import pytest

from tare.base import errors

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.TareError) and cls is not errors.TareError
]


@pytest.mark.parametrize("cls", CLASSES)
def test_text_and_advice_are_kept_apart(cls: type[errors.TareError]) -> None:
    error = cls("No such container: web", hint="tare ps -a lists them")
    assert str(error) == error.message == "No such container: web"
    assert error.hint == "tare ps -a lists them"
    assert cls("x").hint is None


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_what_the_caller_can_do(cls: type[errors.TareError]) -> None:
    assert cls.__doc__
    assert cls.__bases__ == (errors.TareError,), "catch a class by what can be done about it, not by a family"
