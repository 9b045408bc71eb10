"""Evaluate a folder of label maps against the truth: mean scores, and a table of every case and structure."""

import pandas

import medseg

evaluation = medseg.evaluate("masks", "truth", ["liver", "spleen"])  # files pair up by their names
print(evaluation.mean("dice"), evaluation.mean("nsd_3mm"))
pandas.DataFrame(evaluation.rows()).to_csv("scores.csv", index=False)
