from __future__ import annotations

import pytest

from pytest_machine import errors
from pytest_machine.errors import CleanupFailed, CommandFailed, MachineError, StoreError, UnknownMachine, WaitTimeout
from pytest_machine.model import Result


def test_the_form_of_a_message() -> None:
    error = UnknownMachine("There is no machine 'web'.", facts={"store": "/x", "a": 1}, hint="pytest-machine ls")
    assert str(error) == "There is no machine 'web'.\n  store  /x\n  a      1\nhint: pytest-machine ls"
    assert error.message == "There is no machine 'web'."
    assert str(MachineError("Only this.")) == "Only this."


def test_exit_codes_tell_who_can_mend_it() -> None:
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, MachineError):
            assert found.exit_code == (2 if issubclass(found, errors.UsageError) else 1)


def test_a_wait_that_ran_out_is_a_timeout_too() -> None:
    with pytest.raises(TimeoutError, match="hint: x"):
        raise WaitTimeout("It did not come.", hint="x")


def test_a_failed_command_keeps_what_it_did() -> None:
    result = Result(("false",), 1, "out", "err")
    assert CommandFailed("x", result=result).result is result


def test_a_failed_cleanup_says_every_reason() -> None:
    error = CleanupFailed("Two are left.", [StoreError("One.", hint="rm 1"), OSError("two")], hint="prune")
    assert str(error) == "Two are left.\n- One.\n  hint: rm 1\n- two\nhint: prune"
    assert isinstance(error, MachineError)
    with pytest.raises(CleanupFailed):
        raise error


def test_a_failed_cleanup_can_be_taken_apart() -> None:
    first, second = StoreError("One."), OSError("two")
    error = CleanupFailed("Two are left.", [first, second], hint="prune")
    caught, rest = error.split(StoreError)
    assert isinstance(caught, CleanupFailed)
    assert caught.exceptions == (first,)
    assert isinstance(rest, CleanupFailed)
    assert rest.exceptions == (second,)
    assert (rest.message, rest.hint) == ("Two are left.", "prune")
