"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input or a bad environment, said in one sentence: what, where, and what to do about it.

    Jobs print it without a traceback and exit with code 2; everything else that is raised is a defect.
    """


def closest(name: str, known: list[str]) -> str:
    """Return a hint for a misspelt `name`: the nearest of `known`, else the whole list."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."
