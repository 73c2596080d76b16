"""Who is in the mesh, and to whom of them we are linked: HyParView, BASALT, ring."""
