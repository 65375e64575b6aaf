"""The commands, a module for each thing that an admin looks after. `cli` puts them together."""
