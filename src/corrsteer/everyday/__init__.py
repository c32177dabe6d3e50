"""Everyday tasks: rows in own words for small chat models, which no benchmark has.

`phrases` has the sentences, `families` makes samples of them, `formats` judges the form of a reply.
"""
