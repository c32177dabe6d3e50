"""Replies of transformers under the script that comes with shared vectors."""

import json
import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    import transformers
    from transformers import AutoModelForCausalLM
except ModuleNotFoundError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(3)


def main(request_path: str, out: str) -> None:
    """Write the replies."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    sys.path.insert(0, request["file"])
    import steer  # type: ignore[import-not-found]

    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype=torch.float32, use_safetensors=True
    )
    steer.reply_greedily(model)
    model.generation_config.eos_token_id = request["eos"] or None
    steer.steer(model, str(Path(request["file"]) / "steering.safetensors"))
    arrays = {"version": np.array(f"transformers {transformers.__version__}")}
    for index, prompt in enumerate(request["prompts"]):
        said = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=request["max_new_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        arrays[f"0/{index}/tokens"] = said.sequences[0, len(prompt) :].numpy()
        arrays[f"0/{index}/logits"] = torch.cat(said.logits).numpy()
    np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
