"""Jobs: scripts for `python jobs/NAME.py`, each a subcommand of `cm-ray`."""
