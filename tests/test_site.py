"""The site of docs/: built with every link followed, every page in it, nothing fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from repository import REPOSITORY


def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, env=quiet, timeout=100)
    assert done.returncode == 0, done.stderr
    pages = {path.parent.name if path.parent.name != "site" else "index" for path in tmp_path.rglob("index.html")}
    assert {path.stem for path in (REPOSITORY / "docs").glob("*.md")} <= pages
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]*src="https?:', text), page
        assert not re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="https?:', text), page


def test_a_page_that_is_in_no_list_of_the_site_is_found() -> None:
    listed = set(re.findall(r"([\w.-]+\.md)", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (REPOSITORY / "docs").glob("*.md")}
