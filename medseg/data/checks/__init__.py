"""Check files, geometry, intensities, structures and data sets: pure functions on arrays, headers and names."""
