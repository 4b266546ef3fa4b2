"""genaug: do generated training images help your model?"""

__version__ = "0.2.0.dev0"
