"""The comparison of layouts, on made-up numbers and on one small matrix; nothing here depends on a time."""

import pytest
import torch

from benchmarks import layouts


def test_a_line_says_how_many_times_as_fast():
    rates = {"PlainLinear": 2e9, "OneRowLinear": 5e9, "PackedLinear": 3e9}
    text = layouts.line({"dtype": "float32", "from": "memory", "columns": 8, "outputs": 16, "rows": 1, "rates": rates})
    assert text.split()[-4:] == ["2.0", "GB/s", "2.50", "1.50"]


@pytest.mark.skipif(not layouts.can_pack(torch.float32), reason="oneDNN packs nothing here")
def test_every_layout_is_measured_on_copies_of_its_own(monkeypatch):
    weights = []
    plain = layouts.PlainLinear

    class Seen(plain):
        def __init__(self, linear):
            super().__init__(linear)
            weights.append(self.weight)

    monkeypatch.setattr(layouts, "KINDS", (Seen, layouts.PackedLinear))
    with torch.no_grad():
        found = layouts.rates(32, 64, torch.float32, (1, 3), streamed=4 * 32 * 64 * 4, rounds=1)
    assert found.keys() == {1, 3} and all(rate > 0 for each in found.values() for rate in each.values())
    assert len({weight.data_ptr() for weight in weights}) == 4
    assert all(torch.equal(weight, weights[0]) for weight in weights)
