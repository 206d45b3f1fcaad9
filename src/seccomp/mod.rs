//! OCI seccomp profile -> filter program -> loaded filter.
