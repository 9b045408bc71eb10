"""Segment a scan that is an array, read the volume of the liver in ml, and save the label map."""

import nibabel

import medseg

scan = nibabel.load("scan.nii.gz")
prediction = medseg.segment(scan.get_fdata(), "runs/first", affine=scan.affine)  # a run's folder, or a bundle
print(prediction.statistics()["liver"]["volume_ml"])
prediction.save("masks/scan.nii.gz")
