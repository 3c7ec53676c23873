"""FFCV beton files into AlexNet."""

__version__ = "0.1.0"
