"""Links of the pages to documents outside of docs/, right in the repository, are made right on the site."""

import re

PAGES = {
    "../docker/README.md": "containers.md",
    "../ARCHITECTURE.md": "architecture.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
}
"""Documents outside of docs/, and the pages that include them."""
_INCLUDED = {page: document for document, page in PAGES.items()}
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def point(app, docname, content):
    """Let links to documents outside of docs/ lead to the pages that include them."""
    up = "../" * docname.count("/")

    def to(match):
        target, anchor = match[1].removeprefix(up), match[2] or ""
        return f"]({up}{PAGES[target]}{anchor})" if target in PAGES else match[0]

    content[0] = _LINK.sub(to, content[0])


def point_included(app, relative_path, parent, content):
    """Let links of an included document, relative to its own folder, lead to the same files and pages."""
    folder = f"../{relative_path.parent.name}/" if relative_path.parent.name == "docker" else "../"

    def to(match):
        target, anchor = match[1], match[2] or ""
        if target.startswith(("http:", "https:", "mailto:")):
            return match[0]
        target = folder + target if not target.startswith("../") else target
        return f"]({PAGES.get(target, target.removeprefix('../docs/'))}{anchor})"

    content[0] = _LINK.sub(to, content[0])


def setup(app):
    """Register the changes."""
    app.connect("source-read", point)
    app.connect("include-read", point_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
