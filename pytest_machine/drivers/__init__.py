"""What makes machines: a module or a folder each, strangers to each other. `pytest_machine.plugins` finds them."""
