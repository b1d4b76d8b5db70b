"""Training and measuring a detector: boxes in pictures, as COCO writes them."""
