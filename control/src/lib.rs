//! Desired state, and the wiring of the planes.
