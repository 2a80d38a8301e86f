"""No circles between the files of cm_ray, no long files and no long functions."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import cm_ray

ROOT = Path(cm_ray.__file__).parent
MOST_FILE_LINES, MOST_FUNCTION_LINES = 300, 40

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[tuple[str, str]] = set()


def module_name(file: Path, root: Path) -> str:
    """Return the dotted name of a file below the package folder `root`; a package has its folder's name."""
    names = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def sources(root: Path) -> dict[str, str]:
    """Return the source text of each module of the package in `root`."""
    return {module_name(file, root): file.read_text() for file in sorted(root.rglob("*.py"))}


def imports(source: str, modules: Iterable[str]) -> set[str]:
    """Return which of the modules a source imports, at its top or inside of functions."""
    known, found = set(modules), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known
            if not inner <= known:
                found.add(node.module or "")
    return found & known


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of two or more modules that reach each other, and modules that import themselves."""
    reached = {name: _reached(name, graph) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def long_functions(modules: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Return the lines of each function, by module and name, that has more than MOST_FUNCTION_LINES."""
    return {
        (name, node.name): lines
        for name, source in modules.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    }


def test_no_files_import_each_other():
    modules = sources(ROOT)
    assert len(modules) > 100
    assert circles({name: imports(source, modules) for name, source in modules.items()}) == []


def test_files_are_short():
    long = {name for name, source in sources(ROOT).items() if len(source.splitlines()) > MOST_FILE_LINES}
    assert long == LONG_FILES


def test_functions_are_short():
    assert set(long_functions(sources(ROOT))) == LONG_FUNCTIONS


def test_a_circle_is_found_through_three_files_and_inside_of_a_function(tmp_path):
    package = tmp_path / "cm_ray"
    (package / "room").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "room/__init__.py": "from cm_ray.room.a import f\n",
        "room/a.py": "from cm_ray.room import b\n",
        "room/b.py": "def g():\n    from cm_ray.room.c import h\n    return h\n",
        "room/c.py": "import cm_ray.room.a\n",
        "room/d.py": "from cm_ray.room.a import f\nimport json\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    modules = sources(package)
    graph = {name: imports(source, modules) for name, source in modules.items()}
    assert graph["cm_ray.room"] == {"cm_ray.room.a"}
    assert graph["cm_ray.room.d"] == {"cm_ray.room.a"}
    assert circles(graph) == [["cm_ray.room.a", "cm_ray.room.b", "cm_ray.room.c"]]


def test_a_function_of_41_lines_is_long():
    def source(lines: int) -> str:
        return "class C:\n    def f(self):\n" + "        pass\n" * (lines - 1)

    assert long_functions({"m": source(40)}) == {}
    assert long_functions({"m": source(41)}) == {("m", "f"): 41}
