//! Every kind of line.
