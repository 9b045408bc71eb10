"""Segment a scan that is an array, read the volume of the liver in ml, and save the label map."""

import nibabel

import medseg

scan = nibabel.load("scan.nii.gz")
prediction = medseg.segment(scan.get_fdata(), "runs/first", affine=scan.affine)  # a run's folder, or a bundle
volumes = {row.structure: row.volume_ml for row in prediction.statistics()}
print(volumes["liver"])
prediction.save("masks/scan.nii.gz")
