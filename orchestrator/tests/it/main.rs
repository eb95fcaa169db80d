//! Integration tests: one binary, real PostgreSQL, real processes.

#![expect(clippy::print_stderr, reason = "a test that skips what is absent says so")]

mod advise;
mod analysis;
mod browser;
mod cli_help;
mod cli_plan;
mod cli_sites;
mod escapes;
mod fuzzed;
mod harness;
mod import;
mod import_again;
mod listen;
mod live_tables;
mod page;
mod plan_models;
mod plan_pools;
mod plan_rules;
mod plot;
mod postmaster;
mod report;
mod run;
mod setup;
mod solvers;
mod store;
mod tidy;
