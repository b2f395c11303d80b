"""The distance between two results of the same case."""

from torch import Tensor

from tests.parity.cases import Case, Results


def largest_difference(ours: Results, theirs: Results) -> float:
    """Over all tensors; infinite where one is missing, has another shape or is not finite.

    Attentions may be missing on either side: sdpa makes none.
    """
    names = {name for name in ours.keys() | theirs.keys() if not name.startswith("attentions")}
    if not names or any(name not in ours or name not in theirs for name in names):
        return float("inf")
    return max(_distance(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())


def _distance(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("inf")
    return (ours.double() - theirs.double()).abs().max().item()


def without_blind_queries(case: Case, results: Results) -> Results:
    """Zeros where a query sees no key at all, for peers whose fused kernel leaves something of its own there.

    A query is blind when the mask is 0 up to its own position: the padding on the left. What it computes is seen by
    nobody, but it stands in the hidden states.
    """
    mask = case.arguments().get("attention_mask")
    if mask is None:
        return results
    sees = mask.cumsum(-1) > 0
    kept = {}
    for name, tensor in results.items():
        kind, _, start = name.partition("@")
        axis = 2 if kind.startswith(("keys", "values", "attentions")) else 1
        if tensor.ndim > 2 and kind.startswith(("keys", "values", "attentions", "hidden_states", "logits")):
            rows = sees[:, int(start or 0) :][:, : tensor.shape[axis]]
            shape = [1] * tensor.ndim
            shape[0], shape[axis] = rows.shape
            tensor = tensor * rows.reshape(shape)
        kept[name] = tensor
    return kept
