//! Pools on disk: reading, changes, damage, caches, packing, the command line.

mod cache;
mod changed;
mod command;
mod damage;
mod files;
mod packing;
mod pillow;
mod reader;
mod support;
