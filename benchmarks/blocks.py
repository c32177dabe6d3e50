"""The two inner loops beside their limits: statistics against reading, encoding against a product.

    python benchmarks/blocks.py
    python benchmarks/blocks.py --d-model 2304 --d-sae 16384

(d) one `StreamingCorrelation.update` over one `torch.sum` of the same block, which does nothing
but read it, and what its parts take; (e) the encoding of a block of residuals by a sae-lens SAE
over the bare matrix product of the same shape.
"""

from __future__ import annotations

import argparse

import torch
from random_model import Shape, alternately, make_model

from corrsteer.stats.batch_moments import _Entries, moments_of
from corrsteer.stats.correlation import StreamingCorrelation


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    Shape.add_to(parser)
    parser.set_defaults(layers=1)
    parser.add_argument("--rows", type=int, default=256, help="samples of a block")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    shape = Shape.of(options)
    lm = make_model(shape, options.device, options.dtype)
    coder = lm.saes[0].load(lm.device)
    generator = torch.Generator(options.device).manual_seed(0)
    x = torch.randn(options.rows, shape.d_model, generator=generator, device=lm.device)
    weights = torch.randn(shape.d_model, shape.d_sae, device=lm.device)
    active = torch.rand(options.rows, shape.d_sae, device=lm.device) < shape.active
    z = torch.where(active, torch.rand(active.shape, device=lm.device), 0.0)
    y = torch.arange(options.rows, device=lm.device).remainder(2).double()
    statistics = StreamingCorrelation(shape.d_sae, lm.device)
    with torch.inference_mode():
        took = alternately(
            options.rounds,
            {
                "sum": lambda: torch.sum(z, 0),
                "update": lambda: statistics.update(z, y),
                "compare": lambda: z.numpy() != 0,
                "entries": lambda: _Entries.of(z, y > 0),
                "block": lambda: moments_of(z, y),
                "product": lambda: x @ weights,
                "encode": lambda: coder.encode(x),
            },
        )
    print(f"block of {options.rows} x {shape.d_sae}, d_model {shape.d_model}")
    print(f"(d) statistics / torch.sum: {took['update'] / took['sum']:.2f}")
    of_sum = {name: seconds / took["sum"] for name, seconds in took.items()}
    if lm.device.type == "cpu":
        print(
            f"    of it, in sums: compare with zero {of_sum['compare']:.2f}, find the entries "
            f"{of_sum['entries'] - of_sum['compare']:.2f}, moments "
            f"{of_sum['block'] - of_sum['entries']:.2f}, bins and merge "
            f"{of_sum['update'] - of_sum['block']:.2f}"
        )
    print(f"(e) encode / matrix product: {took['encode'] / took['product']:.2f}")
    print(f"milliseconds: {', '.join(f'{n} {1000 * s:.2f}' for n, s in took.items())}")


if __name__ == "__main__":
    main()
