//! Laws, fits and intervals. Pure.
