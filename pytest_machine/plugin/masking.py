"""Secrets are taken out of whatever leaves a machine for a report, a file or a screen."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping

import pytest

from pytest_machine.support.secrets import MASK, masked

_WORDS = r"(?:pass(?:word|wd|phrase)?|token|secret|credentials?|api[_-]?key|private[_-]?key|access[_-]?key|_key)"
_NAME = re.compile(_WORDS + r"|(?:^|_)key(?:$|_)|^auth$", re.IGNORECASE)
_KEY_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
# No pattern begins with a repetition without an end: a machine's text must not take hours.
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,20}://[^\s:/@]*:)[^\s@/]+@", re.IGNORECASE)
_HEADER = re.compile(
    r"(\b(?:authorization|x-registry-auth)\b[\"']?\s*[:=]\s*[\"']?(?:bearer |basic )?)[^\s\"',]+", re.IGNORECASE
)
# The end of a secret's name, an equals sign or colon, and what follows it. `\S` alone would eat JSON.
_PAIR = re.compile(r"(" + _WORDS + r"[\"']?\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s\"',;&}\]]+)", re.IGNORECASE)
# Shorter ones stand in too many innocent places.
_SHORTEST = 4


class Mask:
    """Knows some secrets by their values and the rest by how they look."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._values: set[str] = set()
        for value in values:
            self.learn(value)

    def learn(self, value: object) -> None:
        """Take a value for a secret wherever it turns up; what is too short to be one is passed over."""
        if isinstance(value, list | tuple):
            for each in value:
                self.learn(each)
        elif isinstance(value, str) and len(value) >= _SHORTEST:
            self._values.add(value)

    def learn_environment(self, pairs: Iterable[str]) -> None:
        """Take the values of variables that are called like secrets: ``DB_PASSWORD=…``."""
        for pair in pairs:
            name, _, value = pair.partition("=")
            if _NAME.search(name):
                self.learn(value)

    def learn_options(self, options: Mapping[str, object]) -> None:
        """Take every value: these are the secret options of a machine."""
        for value in options.values():
            self.learn(value)

    def over(self, text: str) -> str:
        """Return the text without what is secret."""
        text = masked(text)
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        text = _KEY_BLOCK.sub(rf"-----BEGIN \1----- {MASK}", text)
        text = _HEADER.sub(rf"\1{MASK}", text)
        text = _URL.sub(rf"\1{MASK}@", text)
        return _PAIR.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    quote = match[2][0] if match[2][0] in "\"'" else ""
    return f"{match[1]}{quote}{MASK}{quote}"


class Masking:
    """Takes the secrets of drivers out of every report: for the terminal, JUnit's XML and pytest-xdist's controller."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Mask what the other plugins and pytest itself have put together."""
        report = yield
        report.sections = [(masked(title), masked(text)) for title, text in report.sections]
        report.user_properties = [
            (name, masked(value) if isinstance(value, str) else value) for name, value in report.user_properties
        ]
        if report.longrepr is not None and (shown := str(report.longrepr)) != (hidden := masked(shown)):
            where = report.longrepr
            report.longrepr = (where[0], where[1], masked(where[2])) if isinstance(where, tuple) else hidden
        return report
