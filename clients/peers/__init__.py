"""Foreign clients behind one face: produce, consume, join a group."""
