"""Jobs: what is run from the command line. Each is a docstring, a preset and one call."""
