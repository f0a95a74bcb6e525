"""From two folders to labelled tensors: pairing, scanning, splitting, loading."""
