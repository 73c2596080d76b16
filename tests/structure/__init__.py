"""Structure as a test: arrows, circles, and packages that keep to their own fields."""
