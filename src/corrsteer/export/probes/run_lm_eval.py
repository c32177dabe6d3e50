"""Replies and likelihoods of lm-evaluation-harness's model classes."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

try:
    import numpy as np
    import torch
    from lm_eval.models.hf_steered import SteeredModel

    from corrsteer.export.lm_eval_model import CorrSteerLM
    from corrsteer.lm.conventions import reply_greedily
except ModuleNotFoundError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(3)


def main(request_path: str, out: str) -> None:
    """Write the replies, and the likelihood that each model gives its own reply."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    common = {"pretrained": request["model"], "device": "cpu", "dtype": "float32"}
    if request["revision"]:
        common["revision"] = request["revision"]
    models = (
        SteeredModel(steer_path=request["file"], **common),
        CorrSteerLM(steering=request["steering"], **common),
    )
    arrays = {"version": np.array(f"lm-eval {version('lm-eval')}")}
    for check, lm in enumerate(models):
        reply_greedily(lm.model, lm.tokenizer)  # the harness's own class keeps what the model says
        for index, prompt in enumerate(request["prompts"]):
            said = lm._model_generate(
                context=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_length=len(prompt) + request["max_new_tokens"],
                stop=[],
                output_logits=True,
                return_dict_in_generate=True,
            )
            reply = said.sequences[0, len(prompt) :]
            ((likelihood, _),) = lm._loglikelihood_tokens(
                [(("", ""), prompt, reply.tolist())], disable_tqdm=True
            )
            arrays[f"{check}/{index}/tokens"] = reply.numpy()
            arrays[f"{check}/{index}/logits"] = torch.cat(said.logits).numpy()
            arrays[f"{check}/{index}/likelihood"] = np.array(likelihood)
    np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
