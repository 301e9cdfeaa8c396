"""A page on a training: what it learned, of what, and how well."""

from nncompile.report.run_page import RunPage
from nncompile.report.writing import Report, history_of, report

__all__ = ["Report", "RunPage", "history_of", "report"]
