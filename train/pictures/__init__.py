"""What a classifier has learnt and where it errs, as PNG files and one page: `--report`."""
