"""Names of formats as types: what an editor completes, and what tells a type checker a grid from a block format.

Every other `eXmY`, and every `GRID_gB` and `GRID_gB_SCALE`, is a name as well: signatures take any string beside these.
"""

from typing import Literal

GridName = Literal[
    "binary", "int2", "int2_narrow", "uint2", "int2_midrise", "ternary", "int3", "int3_narrow", "uint3",
    "int3_midrise", "e2m0", "int4", "int4_narrow", "uint4", "int4_midrise", "e1m2", "e2m1", "e3m0", "nf4", "af4",
    "sf4", "pot4", "apot4", "int5", "int5_narrow", "uint5", "int5_midrise", "e2m2", "e3m1", "int6", "int6_narrow",
    "uint6", "int6_midrise", "e2m3", "e3m2", "int7", "int7_narrow", "uint7", "int7_midrise", "e2m4", "e3m3", "e4m2",
    "int8", "int8_narrow", "uint8", "int8_midrise", "e2m5", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e4m3_ieee",
    "e5m2", "e5m2fnuz", "e3m4", "e8m0", "int9", "int9_narrow", "uint9", "int9_midrise", "int10", "int10_narrow",
    "uint10", "int10_midrise", "int11", "int11_narrow", "uint11", "int11_midrise", "int12", "int12_narrow",
    "uint12", "int12_midrise", "int13", "int13_narrow", "uint13", "int13_midrise", "int14", "int14_narrow",
    "uint14", "int14_midrise", "int15", "int15_narrow", "uint15", "int15_midrise", "int16", "int16_narrow",
    "uint16", "int16_midrise", "fp16", "bf16",
]  # fmt: skip
"""Those of `qerror.formats()`, which `qerror.grid` understands."""

BlockFormatName = Literal[
    "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4",
]  # fmt: skip
"""Those of `qerror.block_formats()`."""
