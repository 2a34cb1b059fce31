//! Runs the node core in one thread from one seed, with a broken disk.
