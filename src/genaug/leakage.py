"""What a generator may know about the classes beforehand (DA-Fusion, section 4.1: preventing leakage of internet data)."""

from dataclasses import dataclass, field

from genaug.identity import NOT_IDENTITY
from genaug.registry import component


@component("leakage", "default")
@dataclass(kw_only=True, slots=True)
class Leakage:
    """Leakage prevention. Generators read these keys by interpolation (``${leakage.class_names}``)."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    class_names: bool = False
    """Whether class names may reach prompts and initialisations. False is the data-centric protocol."""
