"""``config.pbtxt``: decided as data, written by one template, parsed back and compared."""

from builder.config.fields import fields_of
from builder.config.model_config import ModelConfig, copies_of, decide
from builder.config.render import parse, render

__all__ = ["ModelConfig", "copies_of", "decide", "fields_of", "parse", "render"]
