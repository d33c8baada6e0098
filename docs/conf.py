"""How Sphinx builds the documentation: MyST pages, docstrings, and pages drawn from the code itself (`_ext/`)."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

from pytest_machine.drivers.runc import leases

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pytest-machine"
author = "The pytest-machine developers"
project_copyright = author
release = version = installed("pytest-machine")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "from_code",
]
exclude_patterns = ["_build", "proof"]

myst_enable_extensions = ["substitution"]
myst_substitutions = {"uid_base": leases.UID_BASE, "uid_count": leases.UID_COUNT}
myst_heading_anchors = 3

# Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"exclude-members": "__init__"}

html_theme = "furo"
html_title = "pytest-machine"
copybutton_prompt_text = r"\$ |# "
copybutton_prompt_is_regexp = True
