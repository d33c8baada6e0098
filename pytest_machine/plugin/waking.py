"""Waking: a machine that an earlier test has stopped, frozen or silenced works again, with all that is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_machine.driver import SupportsPause, SupportsPower, SupportsReboot
from pytest_machine.errors import NotRunning, WaitTimeout
from pytest_machine.model import State

if TYPE_CHECKING:
    from pytest_machine.machine import Machine

# Seconds in which the Docker of a machine that is booting answers.
_BACK = 20.0


def awake(machine: Machine) -> None:
    """Have a machine run that was stopped or frozen, and its Docker answer; raises what says why it does not.

    One whose Docker does not answer although it runs is restarted.
    """
    from pytest_machine import engine
    from pytest_machine.waiting import wait

    def answers() -> str:
        return engine.ping(machine.address, certs=machine.record.directory)

    state = machine.state
    if machine.gone or state is State.ABSENT:
        raise NotRunning(f"The machine '{machine.name}' was destroyed.", facts={"state": state})
    if state is State.PAUSED and isinstance(machine.driver, SupportsPause):
        machine.resume()
    elif state in (State.STOPPED, State.SAVED) and isinstance(machine.driver, SupportsPower):
        machine.start()
    try:
        wait(answers, f"Docker on '{machine.name}'", timeout=_BACK)
    except WaitTimeout:
        if not isinstance(machine.driver, SupportsPower | SupportsReboot):
            raise
        machine.restart()
