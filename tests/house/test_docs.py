"""Every example in the documentation and in the docstrings runs."""

import doctest
import importlib
import pkgutil
import warnings
from pathlib import Path

import pytest

import cornu

ROOT = Path(__file__).parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cornu.__path__, "cornu.")
    if ".engines." not in module.name or "contract" in module.name
)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_page(page):
    """The examples of a page of documentation."""
    cornu.utils.clear_session()
    result = doctest.testfile(str(ROOT / "docs" / page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    """The examples in a module's docstrings."""
    cornu.utils.clear_session()
    with warnings.catch_warnings():
        module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in finder.find(module, name, module):
        runner.run(test)
    # Ops are objects, not functions: their docstrings are found by hand.
    for value in list(vars(module).values()):
        if type(value).__name__ == "Op" and value.body.__module__ == name and value.__doc__ and ">>>" in value.__doc__:
            parsed = doctest.DocTestParser().get_doctest(value.__doc__, {}, value.name, name, 0)
            runner.run(parsed)
    assert runner.summarize(verbose=False).failed == 0
