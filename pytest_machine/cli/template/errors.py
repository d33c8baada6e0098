"""What can be wrong with a template, and where: while it is read or run, a `Wrong` says what."""

from __future__ import annotations

from pytest_machine.errors import UsageError


class TemplateError(UsageError):
    """A template that cannot be run on these data; or not be read: then it is a `TemplateUnread`."""


class TemplateUnread(TemplateError):
    """A template that cannot be read."""


class Wrong(Exception):
    """What is wrong, before it is known where."""
