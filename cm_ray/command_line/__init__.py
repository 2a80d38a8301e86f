"""The command line: options made from settings, one-sentence errors, exit codes.

How options are parsed and how commands are found belongs here. What a command does is called in the rooms
that it uses.
"""
