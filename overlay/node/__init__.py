"""The running node: configuration, driver, store, control API."""
