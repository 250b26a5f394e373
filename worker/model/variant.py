"""Which storage variant a checkpoint is, told by its headers alone.

`loader` calls `detect` before it compares every tensor with the variant's table. config.json is not
asked: what it says of storage is often the default of the program that wrote it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from worker.config import ModelConfig
from worker.errors import CheckpointError
from worker.model.checkpoint import (
    OFFICIAL,
    ROUTED_EXPERT,
    Form,
    Naming,
    TensorSpec,
    Variant,
    expected_tensors,
)

# (dtype of the weight, dtype of its scale)
Pair = tuple[str, str | None]
FORMS: dict[Pair, Form] = {
    ("I8", "F8_E8M0"): Form.FP4,
    ("F8_E4M3", "F8_E8M0"): Form.FP8,
    ("F8_E4M3", "F32"): Form.FP8_FLOAT_SCALES,
    ("BF16", None): Form.UNQUANTISED,
    ("F32", None): Form.UNQUANTISED,
}


def detect(found: Mapping[str, TensorSpec], config: ModelConfig) -> Variant:
    """The variant that most tensors agree with: the comparison that follows names the others.

    Raises CheckpointError for a storage form that is not read here.
    """
    if any(name.startswith("model.layers.") for name in found):
        dtypes = {spec.dtype for spec in found.values()} - {"BF16", "F32", "I64"}
        if dtypes:
            listed = ", ".join(sorted(dtypes))
            raise CheckpointError(
                "transformers' names are read unquantised only",
                [f"{listed}: use the checkpoint under its official names"],
            )
        return Variant(Naming.TRANSFORMERS, Form.UNQUANTISED, Form.UNQUANTISED, mtp=False)
    matrices = [n for n in expected_tensors(config) if n.endswith(".scale")]
    experts = [name for name in matrices if ROUTED_EXPERT.fullmatch(name)]
    dense = [name for name in matrices if not ROUTED_EXPERT.fullmatch(name)]
    return Variant(
        Naming.OFFICIAL,
        _form("dense layers", dense, found, OFFICIAL.dense),
        _form("experts", experts, found, OFFICIAL.experts),
        mtp=any(name.startswith("mtp.") for name in found),
    )


def _form(what: str, scales: Iterable[str], found: Mapping[str, TensorSpec], absent: Form) -> Form:
    """The commonest form of these matrices, given by their scales' names; `absent` if none is
    there at all."""
    pairs: Counter[Pair] = Counter()
    for scale in scales:
        weight = found.get(scale.removesuffix("scale") + "weight")
        if weight is not None:
            pairs[weight.dtype, found[scale].dtype if scale in found else None] += 1
    if not pairs:
        return absent
    pair = pairs.most_common(1)[0][0]
    allowed = {p: f for p, f in FORMS.items() if f is not Form.FP4 or what == "experts"}
    if pair not in allowed:
        known = "; ".join(_text(p) for p in allowed)
        raise CheckpointError(
            f"the storage of the {what} is not supported", [f"{_text(pair)}; known: {known}"]
        )
    return allowed[pair]


def _text(pair: Pair) -> str:
    return f"{pair[0]} without scales" if pair[1] is None else f"{pair[0]} with {pair[1]} scales"
