"""How passes over many samples are cut into units, spread, and resumed."""
