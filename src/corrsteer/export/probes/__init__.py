"""Scripts that run inside consumers: `python PROBE REQUEST.json OUT.npz`.

Each runs in a Python of the consumer's own, which need not have CorrSteer, and so imports nothing
of it. It says greedily what the request asks for, and writes for each check and prompt the tokens
and the logits that chose them. Exit code 3: the consumer is not installed.
"""
