"""Tables as source code for programs without qerror: a C header and a Python module."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .row import ScaleRow

_C = """\
/* Optimal quantization scales. Values are shift + scale * levels, in units of x where x has standard deviation std.
   For data of standard deviation d use scale * d / std. Of block formats (mxfp4, int4_g128, ...) scale is something
   else: the best block scale over the largest magnitude of a block, whatever std is, before the scale is stored (with
   power-of-two scales the least such ratio).
{header}
*/
#ifndef QERROR_SCALES_H
#define QERROR_SCALES_H

#include <stddef.h>
#include <string.h>

#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#define QERROR_INLINE static inline
#else
#define QERROR_INLINE static
#endif

typedef struct {{
    const char *grid;
    const char *density;
    const char *rounding;
    double std;
    double scale;
    double shift;
    double mse;
}} qerror_scale;

#define QERROR_SCALES_COUNT {count}

static const qerror_scale QERROR_SCALES[QERROR_SCALES_COUNT] = {{
{rows}
}};

/* The row of these names, or NULL. */
QERROR_INLINE const qerror_scale *qerror_find_scale(const char *grid, const char *density, const char *rounding)
{{
    size_t i;
    for (i = 0; i < QERROR_SCALES_COUNT; i++) {{
        const qerror_scale *row = &QERROR_SCALES[i];
        if (!strcmp(row->grid, grid) && !strcmp(row->density, density) && !strcmp(row->rounding, rounding))
            return row;
    }}
    return NULL;
}}

#endif
"""

_PYTHON = '''\
"""Optimal quantization scales: representable values are shift + scale * levels. Needs nothing but Python.

Of block formats (mxfp4, int4_g128, ...) scale is something else: the best block scale over the largest magnitude of a
block, whatever std is, before the scale is stored (with power-of-two scales the least such ratio).
"""

HEADER = {header}

# (grid, density, rounding): (std of the density, scale, shift, mse), scale and shift in the units of std.
SCALES = {{
{rows}
}}


def scale_for(std, grid, density, rounding="nearest"):
    """Return the scale for data of standard deviation `std`."""
    of_density, scale, _, _ = SCALES[grid, density, rounding]
    return scale * (std / of_density)
'''


def c_header(rows: Sequence[ScaleRow], header: str) -> str:
    """The table as a C header (C89 to C23 and C++).

    Seventeen decimal digits give every double back exactly.
    """
    lines = ",\n".join(
        f"    {{{', '.join(map(_c_string, (row.grid, row.density, row.rounding)))}, "
        f"{row.std!r}, {row.scale!r}, {row.shift!r}, {row.mse!r}}}"
        for row in rows
    )
    return _C.format(header=header.replace("*/", "* /"), count=len(rows), rows=lines)


def python_module(rows: Sequence[ScaleRow], header: str) -> str:
    """The table as a Python module without imports."""
    lines = "\n".join(
        f"    ({row.grid!r}, {row.density!r}, {row.rounding!r}): "
        f"({row.std!r}, {row.scale!r}, {row.shift!r}, {row.mse!r}),"
        for row in rows
    )
    return _PYTHON.format(header=repr(json.loads(header)), rows=lines)


def _c_string(text: str) -> str:
    """UTF-8 between quotes; every byte but plain characters in octal, which no compiler reads in another way."""
    plain = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{plain}"'
