"""End-to-end: a real cluster, the images, and the demo that runs on them."""
