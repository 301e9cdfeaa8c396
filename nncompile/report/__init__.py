"""A page on a training: what it learned, of what, and how well."""

from nncompile.report.run_page import page_of
from nncompile.report.writing import Report, history_of, report

__all__ = ["Report", "history_of", "page_of", "report"]
