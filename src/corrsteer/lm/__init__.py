"""Language models and their SAEs: loading, hooks, greedy decoding."""
