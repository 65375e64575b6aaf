"""From a clean clone to a cluster that serves, on each host: its own files, commands and variables.

The suite runs them with the tests' packages. `make journeys` runs each host three times over, with its own build
command in a virtual environment of its own, and says how long that took.
"""
