"""Verification: whether a bundle is whole, agrees with itself and does what it says. One rule, one file."""

from medseg.bundle.verify.rules import RULES, check_bundle, verify_bundle
from medseg.bundle.verify.schema import SCHEMA

__all__ = ["RULES", "SCHEMA", "check_bundle", "verify_bundle"]
