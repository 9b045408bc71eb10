"""Train a network, print its history as a table, and plot its curves on a page for the browser."""

import pandas

import medseg

quick = {"patch_size": [64, 64], "samples_per_case": 4, "max_epochs": 2, "num_workers": 0}  # to try it out
run = medseg.train("unet2d", "dataset", ["fast_cpu"], structures=["liver", "spleen"], **quick)
history = pandas.DataFrame(run.history)
print(history[["epoch", "loss", "mean_dice"]], run.best, run.report(), sep="\n")
