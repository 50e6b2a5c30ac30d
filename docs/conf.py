"""The site of the documents; from the root of the repository:

    sphinx-build -j auto -c docs -d build/doctrees . build/site

The root is the source folder, so links between docs/, notebooks/, benchmarks/ and examples/ are
the same on the site as in the repository. Notebooks show the outputs that are committed with them:
`notebooks/run.py --write` makes these in a full run, and CI executes the notebooks in their own
stage.
"""

import sys
import typing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # reference.py
sys.path.insert(1, str(Path(__file__).parents[1]))
typing.GENERATING_DOCUMENTATION = True  # jaxtyping: types print as they are written

import ddpm_jax  # noqa: E402

project = "ddpm_jax"
author = "The ddpm_jax authors"
copyright = author  # noqa: A001
version = release = ddpm_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "notebooks/*.ipynb",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "examples/*/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # single backticks in docstrings: code, and a link where it is a public name
    ("py:class", ".*"),  # types in signatures: those of other libraries, and some without a page
]

nb_execution_mode = "off"  # the committed outputs
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "py:obj"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True

smartquotes_action = "D"  # quotes stay as they are: many are those of code

html_theme = "sphinx_book_theme"
html_title = f"ddpm_jax {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_additional_pages = {"index": "to_index.html"}
templates_path = ["templates"]
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
