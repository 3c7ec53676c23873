"""`train report`: one HTML file of a run, or of several beside each other.

sections.py       what each part of the page shows, in order
gather.py         what a run's folder says of itself
data.py           the betons it was trained with and judged by, or why they are not there
judging.py        one pass over the validation data: figures, classes, confusions, predictions
neighbours.py     training images that are nearest by what fc8 sees
headline.py       the tables at its head
curves.py         figures over epochs; drawing.py: their SVG
kernels.py        conv1's kernels; pictures.py: images, mean image, axes
published.py      results of the paper and of write-ups
recipe_values.py  a recipe's values with their sources, and where runs differ
page.py           all of it laid out, by templates/
"""
