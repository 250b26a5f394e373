"""Kubernetes' quantities: `500m`, `32Gi`, `8`."""

_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}


def quantity(text: str | int | float) -> float:
    """Return a quantity as a number: cores, bytes or pieces.

    Raises:
        ValueError: it is none.
    """
    if isinstance(text, int | float):
        return float(text)
    number = text.rstrip("KMGTPEikmun")
    suffix = text[len(number) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"not a quantity: {text!r}")
    return float(number) * _SUFFIXES[suffix]
