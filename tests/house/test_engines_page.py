"""`docs/engines.md` is what `scripts/engines_page.py` finds out about the engines."""

import subprocess
import sys
from pathlib import Path

import pytest

from cornu.engines import registry

ROOT = Path(__file__).parents[2]


def without_versions(text):
    """The page's lines but for the versions it was made with."""
    return [line for line in text.splitlines() if not line.startswith("Tried with ")]


@pytest.mark.skipif(registry.available() != registry.engines(), reason="the page tells of all engines")
def test_the_page_is_up_to_date():
    script = [sys.executable, str(ROOT / "scripts" / "engines_page.py"), "--print"]
    found = subprocess.run(script, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    written = (ROOT / "docs" / "engines.md").read_text()
    assert without_versions(written) == without_versions(found.stdout), "run scripts/engines_page.py"
