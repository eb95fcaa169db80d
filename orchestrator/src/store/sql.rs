//! Queries of the user: read-only.
