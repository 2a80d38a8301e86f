"""The documents for users, and their contents: commands, snippets of Python, inline code, links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    ),
    ROOT / "docker" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Excerpt:
    """A part of a document."""

    document: Path
    text: str

    def __str__(self) -> str:
        """Return the name of a test."""
        return f"{self.document.relative_to(ROOT)}: {' '.join(self.text.split())[:70]}"


def blocks(document, language):
    """Return the fenced blocks of a language in a document."""
    return [text for found, text in _FENCED.findall(document.read_text()) if found == language]


def commands():
    """Return every command in blocks of bash, and every one of cm_ray between backquotes with an argument."""
    found = []
    for document in DOCUMENTS:
        for block in blocks(document, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [Excerpt(document, line) for line in lines if shlex.split(line, comments=True)]
        found += [Excerpt(document, text) for text in inline(document) if _is_command(text)]
    return found


def _is_command(text):
    words = text.split()
    ours = text.startswith(("cm-ray ", "python jobs/", "python benchmarks/"))
    return ours and len(words) > 2 and not any(word.isupper() and len(word) > 2 for word in words)


def snippets():
    """Return every block of Python."""
    return [Excerpt(document, text) for document in DOCUMENTS for text in blocks(document, "python")]


def inline(document):
    """Return what stands between backquotes in a document, outside of its blocks."""
    return [
        " ".join(text.split()) for text in re.findall(r"`([^`]+)`", _FENCED.sub("", document.read_text()))
    ]


def links(document):
    """Return the targets of the links and images in a document that are in the repository."""
    targets = _LINK.findall(_FENCED.sub("", document.read_text()))
    return [target for target in targets if not target.startswith(("http:", "https:"))]


def anchors(document):
    """Return the anchors of the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
