"""Statuses and texts of errors."""

from __future__ import annotations

import errno

import pytest

from tare.base import errors
from tare.wire.errors import STATUS, status_of, text_of


def every_class(cls: type[errors.TareError]) -> set[type[errors.TareError]]:
    return {cls, *(sub for child in cls.__subclasses__() for sub in every_class(child))}


def test_every_error_class_of_the_vocabulary_has_a_status() -> None:
    own = {cls for cls in every_class(errors.TareError) if cls.__module__ == errors.__name__} - {errors.TareError}
    assert own == set(STATUS)


@pytest.mark.parametrize(("error", "status"), [(errors.NotFound("x"), 404), (ValueError("x"), 500)])
def test_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_what_the_host_has_no_more_of_is_told_without_paths() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/secret")
    assert status_of(full) == 503
    assert text_of(full) == "no space left on device: remove images or containers, then repeat"
    assert status_of(OSError(errno.EACCES, "x")) == 500


def test_a_subclass_has_the_status_of_its_parent() -> None:
    class Special(errors.Conflict):
        pass

    assert status_of(Special("x")) == 409


def test_advice_follows_the_message() -> None:
    assert text_of(errors.Unavailable("no crun", hint="apt-get install crun")) == "no crun: apt-get install crun"
    assert text_of(errors.NotFound("No such image: x")) == "No such image: x"
