"""Files of tests have names of their own where their folders are no packages: pytest imports them by it."""

from collections import Counter
from pathlib import Path


def test_no_two_files_have_one_name():
    paths = Path(__file__).parent.glob("*/test_*.py")
    names = Counter(path.name for path in paths if not (path.parent / "__init__.py").exists())
    assert [name for name, count in names.items() if count > 1] == []
