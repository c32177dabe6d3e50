import pytest
import torch

from corrsteer.method.pooling import RunningPool


@pytest.mark.parametrize("kind", ["max", "mean", "first"])
def test_pooling_by_positions_equals_pooling_at_once(kind):
    z = torch.randn(5, 7, 3)
    lengths = [7, 1, 4, 0, 2]
    pool = RunningPool(kind, 5, 3)
    for position in range(7):
        rows = torch.tensor([row for row in range(5) if lengths[row] > position])
        pool.update(rows, z[None, rows, position])
    pooled = pool.result()
    for row, length in enumerate(lengths):
        positions = z[row, :length]
        if length == 0:
            expected = torch.zeros(3)
        else:
            expected = {
                "max": positions.amax(0),
                "mean": positions.mean(0),
                "first": positions[0],
            }[kind]
        torch.testing.assert_close(pooled[row], expected)


@pytest.mark.parametrize("kind", ["max", "mean", "first"])
def test_several_positions_at_a_time_are_pooled_as_one_by_one(kind):
    z, rows = torch.randn(6, 3, 4), torch.tensor([0, 2, 3])
    alone, together = RunningPool(kind, 5, 4), RunningPool(kind, 5, 4)
    for position in z:
        alone.update(rows, position[None])
    for positions in torch.split(z, [1, 4, 1]):
        together.update(rows, positions)
    torch.testing.assert_close(together.result(), alone.result())


def test_the_maximum_of_negative_activations_is_negative():
    pool = RunningPool("max", 1, 2).update(torch.tensor([0]), torch.tensor([[[-2.0, -3.0]]]))
    assert pool.result().tolist() == [[-2.0, -3.0]]


def test_nan_is_not_pooled_away():
    pool = RunningPool("max", 1, 1)
    pool.update(torch.tensor([0]), torch.tensor([[[float("nan")]]]))
    pool.update(torch.tensor([0]), torch.tensor([[[5.0]]]))
    assert pool.result().isnan().all()
