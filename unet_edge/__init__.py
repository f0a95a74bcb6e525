"""Model, data, training and the command line of unet-edge."""
