"""lm-evaluation-harness's own command line, with `--model corrsteer` known to it.

Changes when the harness is started otherwise. `python -m corrsteer.export.lm_eval` runs this.
"""

from __future__ import annotations

import sys

from corrsteer.errors import CorrSteerError


def main() -> None:
    """The harness's own command line, with `--model corrsteer` known to it.

    `python -m corrsteer.export.lm_eval --model_args steering=RUN --tasks T`; every other option is
    the harness's.
    """
    try:
        from lm_eval.__main__ import cli_evaluate

        from corrsteer.export import lm_eval_model  # noqa: F401  (registers the model)
    except ImportError as error:
        sys.stderr.write(
            f"corrsteer: lm-evaluation-harness cannot be imported ({error}); "
            "pip install 'lm-eval[hf]'\n"
        )
        sys.exit(2)
    sys.argv[1:] = _with_model(sys.argv[1:])
    try:
        cli_evaluate()
    except CorrSteerError as error:
        sys.stderr.write(f"corrsteer: {error}\n")
        sys.exit(2)


def _with_model(arguments: list[str]) -> list[str]:
    """The arguments, with `--model corrsteer` where they run an evaluation and name no model."""
    options = arguments[1:] if arguments[:1] == ["run"] else arguments
    evaluates = bool(options) and options[0].startswith("-")
    if not evaluates or any(each.split("=")[0] in ("--model", "-M") for each in options):
        return arguments
    return ["run", "--model", "corrsteer", *options]


if __name__ == "__main__":
    main()
