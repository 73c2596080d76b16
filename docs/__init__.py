"""The manual, and the script that writes those parts of it that the code already says."""
