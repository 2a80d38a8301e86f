"""Every documented command and snippet is run in a short form, or there is a reason why not.

tests/command_line/test_documents_run.py runs them.
"""

import shlex

from tests.docs.documents import commands, snippets
from tests.docs.short_forms import HERE, ON_RAY, ONLY_CHECKED, ONLY_PARSED, SNIPPETS


def text_of(excerpt):
    """Return a command without its comment, in one line."""
    lexer = shlex.shlex(excerpt.text, posix=False, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, "#"
    return " ".join(lexer)


COMMANDS = sorted({text_of(excerpt) for excerpt in commands()})


def test_every_command_has_one_short_form_or_a_reason():
    table = {*HERE, *ON_RAY}
    assert not HERE.keys() & ON_RAY.keys()
    assert table <= set(COMMANDS), "the table speaks of documented commands alone"
    reasons = {text: [each for each in ONLY_PARSED if text.startswith(each)] for text in COMMANDS}
    assert [text for text, found in reasons.items() if text not in table and not found] == []
    used = {each for text, found in reasons.items() if text not in table for each in found}
    assert set(ONLY_PARSED) - used == set(), "reasons for nothing"


def test_every_snippet_has_one_short_form_or_a_reason():
    for snippet in snippets():
        found = [each for each in (*SNIPPETS, *ONLY_CHECKED) if snippet.text.startswith(each)]
        assert found, snippet
    for each in (*SNIPPETS, *ONLY_CHECKED):
        assert any(snippet.text.startswith(each) for snippet in snippets()), each
