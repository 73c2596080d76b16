"""Publications: signed, cut into parts, carried along a tree (Plumtree)."""
