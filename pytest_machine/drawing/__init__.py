"""A lab as a picture: machines, networks, who sits on which, and what is wrong between them, as SVG and as text.

Pure: a `Scene` goes in, text comes out, and the same scene gives the same text. The picture is one of rows and columns
(a machine is a row, a network a line down through the rows of those that sit on it, a fault a track beside them), so
that nothing lies on anything else, be it two machines or twenty.
"""

from __future__ import annotations

from .prose import told
from .scene import CUT, IMPAIRED, LINK, Box, Bus, Line, Scene
from .svg import STYLE, svg

__all__ = ["CUT", "IMPAIRED", "LINK", "STYLE", "Box", "Bus", "Line", "Scene", "svg", "told"]
