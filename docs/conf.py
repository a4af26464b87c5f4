"""How Sphinx builds the site. Nothing in it is fetched, neither by the build nor by a reader."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from adbc_telemetry import __version__

project = "adbc-telemetry"
author = "the adbc-telemetry authors"
project_copyright = "the adbc-telemetry authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "links",
    "public_names",
]
exclude_patterns = ["_ext", "_static"]

html_theme = "furo"
html_title = f"adbc-telemetry {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# A fenced block of these languages is shown as it stands.
highlight_language = "text"

# Names are shown as a user imports them; the heading says from where.
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings name things as the code does, in single backticks: a link where it is a public name, else code.
default_role = "name"

nitpicky = True
# Several classes may have an attribute of one name, and a page may leave a level of headings out.
suppress_warnings = ["ref.python", "myst.header"]
