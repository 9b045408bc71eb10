"""Verify bundles: whether one is complete, agrees with itself and does what it says."""

from medseg.bundle.verify.metadata import SCHEMA
from medseg.bundle.verify.rules import RULES, check_bundle, verify_bundle

__all__ = ["RULES", "SCHEMA", "check_bundle", "verify_bundle"]
