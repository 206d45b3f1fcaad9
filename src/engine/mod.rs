//! Containers for people: what has a name, a log and a monitor. The life of a container is jug-oci's, which this room
//! runs as a program of its own: it never clones a container itself.
