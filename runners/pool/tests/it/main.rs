//! Pools on disk: reading, damage, caches, packing, the command line.

mod cache;
mod command;
mod damage;
mod packing;
mod reader;
mod support;
