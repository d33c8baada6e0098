"""The distribution in `paper/` is a stranger's: its tests run where it is installed, not here."""

collect_ignore = ["paper"]
