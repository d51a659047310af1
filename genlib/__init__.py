"""genlib: deep generative models, one clear implementation of each."""

__version__ = "0.5.0"
