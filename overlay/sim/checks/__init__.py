"""What has to hold in a world: at every moment, and once its faults are over."""
