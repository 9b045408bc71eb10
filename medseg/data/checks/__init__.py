"""What the dataset doctor looks for, one module a matter; pure functions on arrays, headers and names."""
