import pytest
import torch
from conftest import tiny_config
from transformers import DynamicCache

from corrsteer.lm.kv_cache import ROOM, GrowingLayer, growing_cache, keeps_all


def new_states(seed: int, positions: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2, batch, 2, positions, 8, generator=generator)
    return states[0], states[1]


def test_it_holds_what_a_concatenating_cache_holds():
    growing, dynamic = growing_cache(tiny_config(80), 8), DynamicCache()
    for step in range(ROOM + 5):
        states = new_states(step, 5 if step == 0 else 1)
        if step == ROOM // 2:
            for cache in (growing, dynamic):
                cache.reorder_cache(torch.tensor([0, 2]))
        states = tuple(each[: 2 if step >= ROOM // 2 else 3] for each in states)
        for layer in range(3):
            for found, expected in zip(
                growing.update(*states, layer), dynamic.update(*states, layer), strict=True
            ):
                assert torch.equal(found, expected)
        assert growing.get_seq_length() == dynamic.get_seq_length()


def test_earlier_positions_are_not_written_again():
    layer = GrowingLayer()
    before, _ = layer.update(*new_states(0, 4))
    kept = before.clone()
    layer.update(*new_states(1, 2 * ROOM))
    layer.update(*new_states(2, 1))
    assert torch.equal(before, kept)


@pytest.mark.parametrize(("positions", "kept"), [(8, True), (9, False)])
def test_a_window_that_slides_stays_the_librarys(positions, kept):
    cache = growing_cache(tiny_config(80), positions)  # whose sliding window is 8
    assert keeps_all(cache) == kept
    assert any(isinstance(layer, GrowingLayer) for layer in cache.layers)
