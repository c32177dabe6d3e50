"""SAEs for a model that has none: texts in, a folder of SAEs with their quality out.

What is imported here stays light, so that settings can be checked before any library loads.
"""
