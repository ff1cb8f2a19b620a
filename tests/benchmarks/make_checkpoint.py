"""Make a checkpoint of made-up weights, sharded with an index: `python make_checkpoint.py FOLDER [LAYERS]`.

Shapes are Llama's; five layers take 2.705 GB in bfloat16. Values are Student's t with 8 degrees of freedom, times a
gain of each row and each column, as trained weights have them.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, WIDE, VOCABULARY = 4096, 14336, 32000
LAYERS = 5
_POOL = 1 << 22


def make_checkpoint(
    folder: Path, layers: int = LAYERS, *, hidden: int = HIDDEN, wide: int = WIDE, vocabulary: int = VOCABULARY
) -> int:
    """Write the shards and their index; return the bytes of the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pool = rng.standard_t(8, _POOL).astype(np.float32)
    shards = [{"model.embed_tokens.weight": (vocabulary, hidden)}]
    for layer in range(layers):
        name, small = f"model.layers.{layer}", hidden // 4
        attention = {
            "q_proj": (hidden, hidden),
            "k_proj": (small, hidden),
            "v_proj": (small, hidden),
            "o_proj": (hidden, hidden),
        }
        mlp = {"gate_proj": (wide, hidden), "up_proj": (wide, hidden), "down_proj": (hidden, wide)}
        shards.append(
            {f"{name}.self_attn.{key}.weight": shape for key, shape in attention.items()}
            | {f"{name}.mlp.{key}.weight": shape for key, shape in mlp.items()}
        )
    shards.append({"lm_head.weight": (vocabulary, hidden)})
    index, total = {}, 0
    for number, shapes in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        index |= dict.fromkeys(shapes, file)
        total += _write(folder / file, shapes, pool, rng)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return total


def _write(path: Path, shapes: dict[str, tuple[int, int]], pool: NDArray[np.float32], rng: np.random.Generator) -> int:
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        size = 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for rows, columns in shapes.values():
            gains = 0.02 * np.exp(0.25 * rng.standard_normal((rows, 1))).astype(np.float32)
            across = np.exp(0.15 * rng.standard_normal(columns)).astype(np.float32)
            step = max(1, (1 << 20) // columns)
            for row in range(0, rows, step):
                count = min(step, rows - row)
                start = int(rng.integers(pool.size - count * columns))
                part = pool[start : start + count * columns].reshape(count, columns) * gains[row : row + count] * across
                # To bfloat16: the upper half, rounded to nearest.
                bits = part.view(np.uint32)
                file.write(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes())
    return end


if __name__ == "__main__":
    print(make_checkpoint(Path(sys.argv[1]), *map(int, sys.argv[2:])), "bytes")
