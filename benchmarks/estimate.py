"""Memory and time to expect of Gemma-2 2B and Llama-3.1 8B on one GPU, computed from shapes.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --batch-size 8 --prompt 100 --reply 512
    python benchmarks/estimate.py --measure-step

Nothing here was measured on a GPU. A time is the floor that a GPU's published peak rates set: a
pass takes at least its arithmetic over the peak rate, and at least its weights and keys and values
over the peak bandwidth. `--measure-step` measures what no peak rate tells: the CPU's own part of a
step of decoding, by models so narrow that arithmetic does not count.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import torch
from random_model import Shape, generate_plainly, make_model, make_task, prompt_ids

from corrsteer.method.pooling import BLOCK_ROWS

GIB = 2**30
SAMPLES = 1000


@dataclass(frozen=True)
class Model:
    """Shapes of a model and its SAEs.

    Attributes:
        embeddings: 1 where input and output share theirs, else 2.
        norms: of a block.
        element: bytes of a number of the model; its SAEs are in float32 always.
        architecture: as `random_model` names it.
    """

    name: str
    layers: int
    d_model: int
    mlp: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    embeddings: int
    norms: int
    d_sae: int
    element: int = 2
    architecture: str = "gemma2"

    @property
    def block(self) -> int:
        """Parameters of a block."""
        attention = 2 * self.d_model * self.head * (self.heads + self.kv_heads)
        return attention + 3 * self.d_model * self.mlp + self.norms * self.d_model

    @property
    def parameters(self) -> int:
        """All of the model's."""
        table = self.vocabulary * self.d_model
        return self.layers * self.block + self.embeddings * table + self.d_model

    @property
    def encoders(self) -> int:
        """Parameters that encoding needs, of all layers."""
        return self.layers * (self.d_model * self.d_sae + 2 * self.d_sae + self.d_model)


@dataclass(frozen=True)
class GPU:
    """Peak rates that NVIDIA publishes, without sparsity: an assumption, nothing measured.

    Attributes:
        bfloat16, float32: arithmetic a second; float32 without TF32, which nothing here turns on.
        bandwidth: bytes a second.
    """

    name: str
    bfloat16: float
    float32: float
    bandwidth: float


@dataclass(frozen=True)
class Execution:
    """What is run: prompts and replies of equal length, in batches."""

    batch: int = 32
    prompt: int = 200
    reply: int = 32


GEMMA = Model("Gemma-2 2B", 26, 2304, 9216, 8, 4, 256, 256_000, 1, 4, 16_384)
LLAMA = Model(
    "Llama-3.1 8B", 32, 4096, 14_336, 32, 8, 128, 128_256, 2, 2, 32_768, architecture="llama"
)
RTX_4090 = GPU("RTX 4090 24 GB", 165.2e12, 82.6e12, 1.008e12)
A100 = GPU("A100 80 GB", 312e12, 19.5e12, 2.039e12)
H100 = GPU("H100 80 GB", 989e12, 67e12, 3.35e12)
PAIRS = ((GEMMA, RTX_4090), (GEMMA, A100), (GEMMA, H100), (LLAMA, A100), (LLAMA, H100))

MEASURED = {1: 1.08, 32: 1.22}
"""Reply length -> collection over generation, from `docs/performance.md`, of the shape below."""
BENCHMARK = Model("benchmark", 12, 512, 2048, 8, 4, 64, 8192, 1, 4, 8192, element=4)
BENCHMARK_WORK = {reply: Execution(16, 128, reply) for reply in MEASURED}


def memory(model: Model, execution: Execution) -> dict[str, int]:
    """Bytes on the GPU while samples are collected, by what takes them."""
    positions = execution.batch * execution.prompt
    block = BLOCK_ROWS["gpu"]
    kept = (
        model.layers
        * model.kv_heads
        * model.head
        * execution.batch
        * (execution.prompt + execution.reply)
    )
    return {
        "weights, bfloat16": model.element * model.parameters,
        "encoders, float32": 4 * model.encoders,
        "decoder of the SAE being read": 4 * model.d_model * model.d_sae,
        "statistics, 208 bytes a latent": 208 * model.layers * model.d_sae,
        "key-value cache": 2 * model.element * kept,
        "residuals of the prompts' pass": model.element * model.layers * positions * model.d_model,
        "one MLP in the prompts' pass": 3 * model.element * positions * model.mlp,
        "attention scores, float32": 4 * execution.batch * model.heads * execution.prompt**2,
        "pooled activations": 4 * model.layers * execution.batch * model.d_sae,
        "residuals waiting to be encoded": model.element * model.layers * block * model.d_model,
        "activations being encoded, mask": (4 + 1) * block * model.d_sae,
    }


def arithmetic(model: Model, positions: float, context: float, heads: float) -> float:
    """Operations of passing positions through the blocks: two a parameter, and attention.

    Args:
        model: theirs.
        positions: passed.
        context: positions that each attends to, on average.
        heads: positions of which logits are computed.
    """
    attention = 4 * model.layers * model.heads * model.head * context
    logits = 2 * model.vocabulary * model.d_model
    return positions * (2 * model.layers * model.block + attention) + heads * logits


def generating(model: Model, execution: Execution, samples: int) -> tuple[float, float]:
    """Operations of the prompts' passes, and of decoding, for so many samples."""
    prompts = arithmetic(model, samples * execution.prompt, execution.prompt / 2, samples)
    decoded = samples * (execution.reply - 1)
    return prompts, arithmetic(model, decoded, execution.prompt + execution.reply / 2, decoded)


def encoding(model: Model, execution: Execution, samples: int) -> float:
    """Operations of encoding the generated positions of so many samples at every layer."""
    return samples * execution.reply * 2 * model.layers * model.d_model * model.d_sae


def seconds(
    model: Model, gpu: GPU, execution: Execution, samples: int = SAMPLES
) -> dict[str, float]:
    """The floor of each part, in seconds for so many samples."""
    prompts, decoding = generating(model, execution, samples)
    steps = math.ceil(samples / execution.batch) * (execution.reply - 1)
    cache = memory(model, execution)["key-value cache"]
    read = steps * (model.element * model.parameters + cache) / gpu.bandwidth
    return {
        "prompts": prompts / gpu.bfloat16,
        "decoding": max(decoding / gpu.bfloat16, read),
        "encoding": encoding(model, execution, samples) / gpu.float32,
    }


def predicted_ratio(reply: int) -> float:
    """Collection over generation in the benchmark, by arithmetic alone, at one rate for both."""
    execution = BENCHMARK_WORK[reply]
    plain = sum(generating(BENCHMARK, execution, 1))
    return (plain + encoding(BENCHMARK, execution, 1)) / plain


def print_memory(execution: Execution) -> None:
    """The table of memory, and how many layers fit where not all do."""
    gemma, llama = memory(GEMMA, execution), memory(LLAMA, execution)
    print(f"{'GiB, computed':<34}{GEMMA.name:>12}{LLAMA.name:>14}")
    for part in gemma:
        print(f"{part:<34}{gemma[part] / GIB:>12.2f}{llama[part] / GIB:>14.2f}")
    print(f"{'all of it':<34}{sum(gemma.values()) / GIB:>12.2f}{sum(llama.values()) / GIB:>14.2f}")
    small = memory(LLAMA, Execution(8, execution.prompt, execution.reply))
    rest = sum(small.values()) - small["encoders, float32"]
    fit = (22 * GIB - rest) / (small["encoders, float32"] / LLAMA.layers)
    print(f"Llama Scope layers beside Llama 8B in 22 GiB, batch of 8: {fit:.0f}")


def print_time(execution: Execution) -> None:
    """The table of floors, and the formula held against what was measured."""
    steps = math.ceil(SAMPLES / execution.batch) * execution.reply
    print(f"seconds for {SAMPLES:,} samples, floor   prompts  decoding  encoding   together")
    for model, gpu in PAIRS:
        found = seconds(model, gpu, execution)
        parts = "".join(f"{found[part]:>10.1f}" for part in found)
        print(f"{model.name + ', ' + gpu.name:<31}{parts}{sum(found.values()):>11.1f}")
    print(f"forward passes for them: {steps:,}")
    for reply, measured in MEASURED.items():
        print(
            f"collection / generation, replies of {reply:>2}: "
            f"{predicted_ratio(reply):.2f} by this formula, {measured:.2f} measured on a CPU"
        )


def measure_step(model: Model, rounds: int = 5, tokens: int = 64) -> float:
    """CPU seconds of a step of decoding, of a model that is as deep and next to nothing wide."""
    torch.set_num_threads(1)
    lm = make_model(Shape(model.architecture, model.layers, 32, 64, 4, 2, d_sae=64))
    prompts = prompt_ids(lm, make_task(1, 8, tokens))
    generate_plainly(lm, prompts, 1, tokens)
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        generate_plainly(lm, prompts, 1, tokens)
        spent.append((time.process_time() - start) / tokens)
    return sorted(spent)[rounds // 2]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=Execution.batch)
    parser.add_argument("--prompt", type=int, default=Execution.prompt, help="tokens of a prompt")
    parser.add_argument("--reply", type=int, default=Execution.reply, help="tokens of a reply")
    parser.add_argument("--measure-step", action="store_true", help="on this machine's CPU")
    options = parser.parse_args()
    if options.measure_step:
        for model in (GEMMA, LLAMA):
            print(f"{model.name}: {1000 * measure_step(model):.0f} ms of CPU time a step")
        return
    execution = Execution(options.batch_size, options.prompt, options.reply)
    print_memory(execution)
    print()
    print_time(execution)


if __name__ == "__main__":
    main()
