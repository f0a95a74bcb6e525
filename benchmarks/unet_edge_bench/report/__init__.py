"""The benchmark's results for people: an HTML page with pictures, and Markdown for pull requests.

Nothing here needs more than numpy and the standard library, except the page itself: jinja2.
"""

from .page import render, write_html
from .summary import markdown

__all__ = ["markdown", "render", "write_html"]
