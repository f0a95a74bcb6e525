"""`python -m unet_edge` is `unet-edge`."""

from unet_edge.cli import main

main()
