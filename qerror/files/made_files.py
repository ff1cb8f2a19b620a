"""Files that this library has made of a model: sketches and scales. No model, also beside one."""

from .mapping import Checkpoint

SKETCH = "a sketch"
SCALES = "scales of a fit"
# Ends of the names that `qerror fit` writes.
_RESULTS = (".scale", ".shift", ".zero_point", ".tensor_scale", ".codes")


def made_of(file: Checkpoint) -> str:
    """What this library has made a file of tensors: a sketch, or scales; empty for all others."""
    if "qerror_sketch" in file.metadata:
        return SKETCH
    of_fit = file.metadata.get("made_by", "").startswith("qerror") and all(name.endswith(_RESULTS) for name in file)
    return SCALES if of_fit else ""
