"""Circuits, behind one entry (`relaying`): asked for (`circuits`), and served (`serving`)."""
