"""Colours of the heat map: one hue family from dark to light, told apart by any eye and in print."""

from __future__ import annotations

# From dark blue over grey to yellow: lightness rises evenly, so that order survives colour blindness and grey print.
_STOPS = ((0, 32, 77), (48, 68, 109), (92, 99, 112), (125, 124, 120), (164, 153, 109), (209, 187, 84), (255, 234, 70))
STEPS = 48


def palette() -> list[str]:
    """Colours from low to high, as #rrggbb."""
    return [_mixed(k / (STEPS - 1)) for k in range(STEPS)]


def _mixed(t: float) -> str:
    at = t * (len(_STOPS) - 1)
    low = min(int(at), len(_STOPS) - 2)
    part = at - low
    mixed = (round(a + (b - a) * part) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def step_of(value: float, low: float, high: float) -> int:
    """Which colour of the palette a value has."""
    share = 0.5 if high <= low else (value - low) / (high - low)
    return min(STEPS - 1, max(0, round(share * (STEPS - 1))))


def ink_on(step: int) -> str:
    """Black or white, whichever is read better on a colour."""
    return "#000" if step > STEPS * 0.55 else "#fff"
