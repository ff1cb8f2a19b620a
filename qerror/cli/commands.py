"""The command `qerror`. What a command needs is loaded when it is called: help and version come at once."""

from __future__ import annotations

import click

from .._version import __version__
from .group import LazyCommands
from .options import examples

# Where each command is, and the first sentence of its help.
COMMANDS = {
    "ask": ("sketching", "ask", "Answer from the SKETCH that `qerror scan` made, without the model."),
    "audit": (
        "takeaway",
        "audit",
        "Recompute the published constants: which digits are right, and how many dB each constant loses.",
    ),
    "certify": (
        "certification",
        "certify",
        "Prove the globally optimal scale of GRID and its error, in ball arithmetic (extra `certify`).",
    ),
    "collect": ("fitting", "collect", "Put the parts together that `qerror fit -o DIR --shard i/n` made."),
    "compare": (
        "computing",
        "compare",
        "Rank every format of B bits by its error, each at its optimal scale, and block formats of such elements.",
    ),
    "demo": (
        "computing",
        "demo",
        "Optimal scales of the common formats: for a Gaussian, a Laplace density and a real trained tensor.",
    ),
    "derive": (
        "derive",
        "derive",
        "Derive an error, or the scale that makes it smallest, step by step from the definition.",
    ),
    "error": ("computing", "error", "Error of GRID at given scales, and how many dB the best scale would gain."),
    "evaluate": (
        "exporting",
        "evaluate",
        "How good the scales of the quantized MODEL are, against the weights that it was made of.",
    ),
    "export": ("exporting", "export", "Write MODEL with quantized weights, as files that runtimes load."),
    "figures": (
        "takeaway",
        "figures",
        "Draw the figures of the notebooks as .svg and .png: all, or those of the given NAMEs.",
    ),
    "fit": ("fitting", "fit", "Fit scales to the tensors of MODEL, however large it is."),
    "formats": (
        "computing",
        "formats",
        "List every named format, or the levels, codes and thresholds of format NAME (of its elements).",
    ),
    "ladder": (
        "computing",
        "ladder",
        "What each GRID loses, step by step, from Shannon's limit to its scale in use.",
    ),
    "plan": ("planning", "plan", "Choose a format for each tensor of MODEL: the least error within a budget."),
    "report": ("reporting", "report", "Write a page about MODEL that opens in any browser, without network."),
    "scale": ("computing", "scale", "Optimal scale of each GRID, with its error."),
    "scan": ("sketching", "scan", "Read MODEL once and write a SKETCH of it that answers for any format."),
    "table": (
        "takeaway",
        "table",
        "Optimal scales of many formats on many densities, as a table or as a file for other programs.",
    ),
    "verify": (
        "verification",
        "verify",
        "Challenge the predicted errors by simulations; exit status 1 if one is rejected.",
    ),
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
