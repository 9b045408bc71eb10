"""Verification: whether a bundle is whole, agrees with itself and does what it says. One rule, one file."""

from medseg.bundle.verification.schema import SCHEMA
from medseg.bundle.verification.verify import RULES, check_bundle, verify_bundle

__all__ = ["RULES", "SCHEMA", "check_bundle", "verify_bundle"]
