"""From a peer id to a link: direct dial, or an offer through the mesh."""
