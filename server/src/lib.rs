//! Builds one node from one configuration: opens, wires, listens, stops.
