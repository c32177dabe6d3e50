"""What transformers prints by itself, kept out of what is ours.

Changes when it prints in another way.
"""

from __future__ import annotations


def quiet_transformers() -> None:
    """Keep transformers' own progress bars and warnings out of ours."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
