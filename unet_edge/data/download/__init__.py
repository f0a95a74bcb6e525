"""Public data sets: fetched, checked, and laid out as unet-edge takes them."""
