//! Decides and remembers: streams, partitions, producers, cursors, groups.
