"""MONAI's config language, read in one place and without MONAI: references, overlays, the check of keys, differences.

A path in a config has `#` between its parts here, `train#trainer#max_epochs`; MONAI also takes `::` for it.
"""
