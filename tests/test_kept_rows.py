"""The bounded sample of residuals: the same under any cut and order, stored, refused."""

import pytest
import torch

from corrsteer.errors import ArtifactError
from corrsteer.stats import kept_rows
from corrsteer.stats.kept_rows import KeptRows


def test_the_lowest_hashes_are_kept_under_any_cut_and_order(monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_KEPT", 9)
    ids = [f"q{number}" for number in range(50)]
    values, y = torch.randn(50, 3), (torch.arange(50) % 2).double()
    whole = KeptRows(3).update(ids, values, y)
    assert len(whole.keys) == 9
    order = torch.randperm(50).tolist()
    parts = KeptRows(3)
    for start in range(0, 50, 7):
        some = order[start : start + 7]
        parts.merge(KeptRows(3).update([ids[i] for i in some], values[some], y[some]))
    for name, tensor in whole.state().items():
        assert torch.equal(parts.state()[name], tensor)
        assert torch.equal(KeptRows.from_state(whole.state()).state()[name], tensor)


@pytest.mark.parametrize(
    "change",
    [
        {"keys": torch.tensor([2, 1])},
        {"values": torch.zeros(3, 2)},
        {"values": torch.full((2, 2), torch.nan)},
        {"outcomes": torch.zeros(2)},
    ],
)
def test_what_no_samples_have_is_refused(change):
    state = KeptRows(2).update(["a", "b"], torch.ones(2, 2), torch.ones(2)).state()
    with pytest.raises(ArtifactError):
        KeptRows.from_state(state | change)
    with pytest.raises(ArtifactError, match="different lengths"):
        KeptRows(2).merge(KeptRows(3))
