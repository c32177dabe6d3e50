"""Where the built-in model `mini` and its sparse autoencoders lie inside the package.

`corpus` generates everything the model knows and the task rows; `scripts/build_mini.py` makes
the files. Importing this package loads neither.
"""

from pathlib import Path
from typing import Final

MODEL_DIR: Final = Path(__file__).parent / "model"
SAE_DIR: Final = Path(__file__).parent / "saes"

__all__ = ["MODEL_DIR", "SAE_DIR"]
