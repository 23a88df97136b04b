"""Objects to frames and back. A leaf: knows objects and pickle, and no other wing."""
