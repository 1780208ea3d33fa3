"""Build the documentation site: ``python -m docs.site [FOLDER]``. Nothing is fetched; a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.site.check import check_site
from docs.site.pages import ROOT, stage


def main(folder: Path) -> int:
    """Pages, Sphinx, and every link of what came out; the exit code."""
    from sphinx.cmd.build import build_main

    print(f"{stage(folder / 'pages')} pages")
    strictly = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-d", str(folder / "trees")]
    code = build_main([*strictly, "-c", str(Path(__file__).parent), str(folder / "pages"), str(folder / "html")])
    if code:
        return code
    wrong = list(check_site(folder / "html"))
    print("\n".join(wrong) if wrong else f"every link leads somewhere: {folder / 'html' / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"))
