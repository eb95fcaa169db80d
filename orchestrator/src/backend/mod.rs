//! Where attempts execute.
