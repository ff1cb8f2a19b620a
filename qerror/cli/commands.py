"""The command `qerror`. What a command needs is loaded when it is called: help and version come at once."""

from __future__ import annotations

import click

from .._version import __version__
from .group import LazyCommands
from .options import examples

# Where each command is, and what it is for: what lists of commands say without loading one.
COMMANDS = {
    "ask": ("sketching", "Answer for any format from a sketch, without the model"),
    "audit": ("takeaway", "Recompute published constants: digits, and dB lost"),
    "certify": ("certification", "Prove an optimal scale, or verify certificates"),
    "collect": ("fitting", "Put the parts of a shared `fit -o DIR` together"),
    "compare": ("computing", "Rank all formats of B bits, each at its best scale"),
    "demo": ("computing", "Best scales of the common formats on three sources"),
    "derive": ("derive", "Derive an error or the best scale, step by step"),
    "error": ("computing", "Errors of a format at given scales, and dB lost"),
    "evaluate": ("exporting", "How good the scales and codes of a quantized model are"),
    "export": ("exporting", "Write a quantized model that runtimes load"),
    "figures": ("takeaway", "Draw the figures of the notebooks"),
    "fit": ("fitting", "Fit scales to the tensors of a model, however large"),
    "formats": ("computing", "List the formats, or levels and codes of one"),
    "ladder": ("computing", "What each step from Shannon's limit to a format loses"),
    "plan": ("planning", "Choose a format for each tensor, within a budget"),
    "report": ("reporting", "Write a page about a model that any browser opens"),
    "scale": ("computing", "Best scales of formats, with their errors"),
    "scan": ("sketching", "Read a model once, for answers about any format"),
    "table": ("takeaway", "Best scales of many formats and densities, as a file"),
    "verify": ("verification", "Challenge predicted errors by simulations"),
}


@click.group(
    cls=LazyCommands,
    places=COMMANDS,
    epilog=examples(
        "qerror demo",
        "qerror scale int4 e2m1 nf4 --density laplace",
        "qerror error int8 --scale 0.02 0.03 0.04",
        "qerror compare --bits 4 --data model.safetensors --tensor layers.0.weight",
        "qerror ladder int4 mxfp4",
        "qerror formats e2m1",
        "qerror fit model.safetensors --grid int4 --axis 0 --rule minmax",
        "qerror export MODEL_DIR --format int4_g128 -o OUT",
        "qerror plan MODEL_DIR --bits 4.5 -o plan.json",
        "qerror report MODEL_DIR --plan plan.json -o report.html",
        "qerror table --grids int4 e2m1 -o scales.h",
        "qerror audit",
        "qerror verify --n 1e6",
        "qerror certify int8 -o proof.json",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="qerror")
def qerror_command() -> None:
    """Quantization error: how much a format loses on a distribution, and the scale that loses least."""
