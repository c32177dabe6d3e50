"""The paper's method, a module a step: collect, pool, rank, choose, evaluate."""
