"""Convert diffusers checkpoints to Flax parameters and back. It needs NumPy and no torch, and it
executes nothing that a file contains.
"""

from weights_convert.convert import Part as Part
from weights_convert.convert import Report as Report
from weights_convert.convert import convert as convert
from weights_convert.files import Stem as Stem
from weights_convert.files import find_weights as find_weights
from weights_convert.files import open_weights as open_weights
from weights_convert.files import weight_files as weight_files
from weights_convert.inspected import Inspected as Inspected
from weights_convert.inspected import inspect as inspect
from weights_convert.layouts import UNCONDITIONAL as UNCONDITIONAL
from weights_convert.layouts.base import Settings as Settings
from weights_convert.rules import to_flax as to_flax
from weights_convert.rules import to_torch as to_torch
from weights_convert.single_file import SingleFile as SingleFile
from weights_convert.single_file import open_single_file as open_single_file
from weights_convert.single_layout import SingleOptions as SingleOptions
from weights_convert.tensors import Checkpoint as Checkpoint
from weights_convert.write import save_flax as save_flax
from weights_convert.write import save_orbax as save_orbax
from weights_convert.write import save_torch as save_torch

__all__ = [
    "Checkpoint",
    "Stem",
    "find_weights",
    "open_weights",
    "SingleFile",
    "open_single_file",
    "weight_files",
    "to_flax",
    "to_torch",
    "save_torch",
    "save_flax",
    "save_orbax",
    "convert",
    "Report",
    "Part",
    "SingleOptions",
    "Settings",
    "Inspected",
    "inspect",
    "UNCONDITIONAL",
]
