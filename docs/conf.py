"""Configuration of Sphinx. Nothing is fetched from the network: the build needs only what the `docs` group installs."""

import sys
from pathlib import Path

from flask_asynclog import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "flask_asynclog"
author = "The flask_asynclog maintainers"
project_copyright = "2026, The flask_asynclog maintainers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "option_table", "field_table"]
exclude_patterns = ["_build"]
highlight_language = "python"

# Docstrings refer to names in single backticks. A name that is not documented here stays plain code.
default_role = "py:obj"
smartquotes = False  # "text" is a value here
autodoc_preserve_defaults = True
autodoc_mock_imports = ["gunicorn"]  # of the one module that needs it, and only when gunicorn runs
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = f"flask_asynclog {release}"
html_copy_source = False
