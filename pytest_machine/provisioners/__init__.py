"""The built-in provisioners, strangers to each other; `pytest_machine.plugins` finds them and says in which order."""
