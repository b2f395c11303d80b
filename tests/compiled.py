"""`python -m tests.compiled`: the model through torch.compile in one piece, beside itself; prints what held."""

import torch

from tests.models import ids, tiny

PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])  # whose first queries see nothing
POSITIONS = ([0, 1, 2, 0, 1, 2, 3, 0, 1], list(range(9)), list(range(8, -1, -1)))


def require_equal_gradients():
    model = tiny()
    labels = ids().masked_fill(PADDED == 0, -100)
    gradients = []
    for run in (model, torch.compile(model, backend="eager", fullgraph=True)):
        model.zero_grad()
        run(ids(), PADDED, labels=labels, use_cache=False).loss.backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*gradients, strict=True))
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])


def require_equal_documents():
    model = tiny()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for positions in POSITIONS:
        asked = {"position_ids": torch.tensor([positions] * 2), "use_cache": False}
        assert (compiled(ids(), **asked).logits - model(ids(), **asked).logits).abs().max() < 1e-5


if __name__ == "__main__":
    require_equal_gradients()
    print("gradients")
    require_equal_documents()
    print("documents")
