"""Images to resized images, statistics and FFCV beton files."""

__version__ = "0.1.0"
