"""Train the small network whose weights and activations the package ships, and write them to one file.

``python make_digits.py`` writes ``qerror/data/digits_mlp.safetensors`` again. It needs scikit-learn
(``pip install qerror[data]``), whose bundled digits are the data. The same seed gives the same network; on another
processor the last bits of ``exp`` may differ, and with them the last bits of the weights.
"""

import itertools
import json
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qerror._files import atomic_open

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]

SEED = 20260518
WIDTHS = (64, 96, 64, 10)
EPOCHS = 60
BATCH = 32
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
TEST_IMAGES = 360
STORED_IMAGES = 200


def forward(layers: Layers, images: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Inputs of every layer, and the logits behind the last one."""
    signals = [images]
    for number, (weight, bias) in enumerate(layers):
        # einsum instead of BLAS: the order of its sums does not depend on the number of threads.
        logits = np.einsum("ni,oi->no", signals[-1], weight) + bias
        signals.append(logits if number == len(layers) - 1 else np.maximum(logits, 0.0))
    return signals


def train(images: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator) -> Layers:
    """Minimize the cross entropy by gradient descent with momentum, from He's initial weights."""
    layers = [
        (rng.standard_normal((fan_out, fan_in)) * np.sqrt(2 / fan_in), np.zeros(fan_out))
        for fan_in, fan_out in itertools.pairwise(WIDTHS)
    ]
    speeds = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in layers]
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        for batch in np.array_split(rng.permutation(len(images)), len(images) // BATCH):
            signals = forward(layers, images[batch])
            odds = np.exp(signals[-1] - signals[-1].max(axis=1, keepdims=True))
            error = odds / odds.sum(axis=1, keepdims=True)
            error[np.arange(len(batch)), labels[batch]] -= 1
            error /= len(batch)
            for number in reversed(range(len(layers))):
                (weight, bias), (weight_speed, bias_speed) = layers[number], speeds[number]
                weight_speed *= MOMENTUM
                weight_speed -= rate * (np.einsum("no,ni->oi", error, signals[number]) + WEIGHT_DECAY * weight)
                bias_speed *= MOMENTUM
                bias_speed -= rate * error.sum(axis=0)
                error = np.einsum("no,oi->ni", error, weight) * (signals[number] > 0)
                weight += weight_speed
                bias += bias_speed
    return layers


def to_bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even, by adding half of the last kept place to the bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(path: Path, tensors: dict[str, tuple[str, NDArray[np.generic]]], metadata: dict[str, str]) -> None:
    """Write a .safetensors file: length of the header, the header, the tensors end to end."""
    header: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for name, (tag, values) in tensors.items():
        header[name] = {"dtype": tag, "shape": values.shape, "data_offsets": [begin, begin + values.nbytes]}
        begin += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_open(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())


def main() -> None:
    """Train, say how good it is, write the file."""
    import sklearn
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(digits.target))
    images, labels = digits.data[order] / 16, digits.target[order]
    layers = train(images[TEST_IMAGES:], labels[TEST_IMAGES:], rng)

    # What is stored is float32 throughout, so that the activations are those of the stored weights.
    stored = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]
    exact = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in stored]
    signals = forward(exact, images[:TEST_IMAGES])
    accuracy = np.mean(signals[-1].argmax(axis=1) == labels[:TEST_IMAGES])

    tensors: dict[str, tuple[str, NDArray[np.generic]]] = {}
    for number, (weight, bias) in enumerate(stored):
        tensors[f"layers.{number}.weight"] = ("F32", weight)
        tensors[f"layers.{number}.bias"] = ("F32", bias)
        tensors[f"layers.{number}.input"] = ("F32", signals[number][:STORED_IMAGES].astype(np.float32))
    for number, (weight, _) in enumerate(stored):
        tensors[f"layers.{number}.weight.bf16"] = ("BF16", to_bfloat16_bits(weight))
    tensors["labels"] = ("U8", labels[:STORED_IMAGES].astype(np.uint8))
    metadata = {
        "model": f"MLP {'-'.join(map(str, WIDTHS))}, ReLU",
        "dataset": f"scikit-learn {sklearn.__version__} load_digits, pixels / 16",
        "test_accuracy": f"{accuracy:.4f} on {TEST_IMAGES} held-out images",
        "seed": str(SEED),
        "made_by": f"tests/reference/make_digits.py, NumPy {np.__version__}",
        "license": "Apache-2.0 (weights); digits: UCI Optical Recognition of Handwritten Digits, CC BY 4.0",
    }
    path = Path(__file__).parents[2] / "qerror" / "data" / "digits_mlp.safetensors"
    write(path, tensors, metadata)
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes, test accuracy {accuracy:.4f}\n")


if __name__ == "__main__":
    main()
