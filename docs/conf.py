"""Settings of Sphinx for the site of cm_ray.   make docs

The pages are Markdown, which GitHub shows, too (MyST), and the reference is made of docstrings (autodoc).
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
project = "cm_ray"
author = "the authors of cm_ray"
copyright = "the authors of cm_ray, MIT licence"
release = version = _PROJECT["version"]
html_title = f"cm_ray {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "jobs_page",
    "mathml",
    "outside",
]
exclude_patterns = ["_ext", "_static", "gallery/*.py", "Thumbs.db"]
default_role = "code"  # single backquotes in docstrings
nitpicky = False
suppress_warnings = ["myst.iref_ambiguous"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
copybutton_prompt_text = "$ "
smartquotes = False  # dashes of options
toc_object_entries_show_parents = "hide"
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3656c9", "color-brand-content": "#3656c9"},
    "dark_css_variables": {"color-brand-primary": "#9db4ff", "color-brand-content": "#9db4ff"},
    "navigation_with_keys": True,
}
