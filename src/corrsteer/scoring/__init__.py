"""Judging replies: scorers by rule, function or model."""
