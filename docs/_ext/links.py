"""Checks of a built site: every link, picture and script is there, and every anchor.   links.py build/site"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FROM_ELSEWHERE = ("http", "https", "mailto", "data")


class Page(HTMLParser):
    """The targets and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.loaded, self.anchors = [], [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        """Collect what a tag leads to, what it loads, and its anchor."""
        for name, value in attributes:
            if name in ("id", "name"):
                self.anchors.add(value)
            if name in ("href", "src") and value:
                (self.targets if (tag, name) == ("a", "href") else self.loaded).append(value)


def faults(site):
    """Return a sentence for each dead link, missing file and thing that a page loads from elsewhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for target in page.targets + page.loaded:
            parts = urlsplit(target)
            if parts.scheme in _FROM_ELSEWHERE:
                if target in page.loaded and parts.scheme != "data":
                    found.append(f"{name} loads {target} from elsewhere")
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not place.is_file():
                found.append(f"{name}: there is no {target}")
            elif place in pages and unquote(parts.fragment) not in pages[place].anchors:
                found.append(f"{name}: there is no anchor {target}")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    sys.exit("\n".join(wrong))
