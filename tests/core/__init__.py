"""The sans-IO core, machine by machine and composed."""
