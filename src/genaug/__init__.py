"""genaug: do generated training images help your model?"""

__version__ = "0.1.0"
