"""A pipe's definition: the TOML file's model, which is the API's body too.

Unknown keys are refused with the nearest known one. Secrets are read when they are needed, and never printed.
"""

from penstock.config.reading import load, parse
from penstock.config.sections import Destination, Identity, Pipe, Settings, Source, Ssh, TableOptions, Tables
from penstock.config.values import ProviderName, Secret, Section

__all__ = [
    "Destination",
    "Identity",
    "Pipe",
    "ProviderName",
    "Secret",
    "Section",
    "Settings",
    "Source",
    "Ssh",
    "TableOptions",
    "Tables",
    "load",
    "parse",
]
