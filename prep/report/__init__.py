"""`prep report`: one HTML file about a prepared set, for a person to look at before training.

prep.report.contents reads the set, prep.report.choice picks pictures, prep.report.originals reads
their originals where the source can still be read, prep.report.charts and prep.report.pictures
draw, prep.report.view says what is shown of a split, prep.report.page makes the page (page.html).
"""

from prep.report.page import write

__all__ = ["write"]
