"""How Sphinx draws the site: ``make docs``."""

from importlib.metadata import version as _version
from pathlib import Path

project = "distill"
author = "the distill authors"
copyright = author
version = release = _version("distill")
extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "index"
html_theme = "furo"
html_title = f"distill {version}"
html_show_sphinx = False
html_show_sourcelink = html_copy_source = False
html_static_path = [str(Path(__file__).with_name("static"))]
html_css_files = ["site.css"]
myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["myst.header"]
pygments_style = "friendly"
