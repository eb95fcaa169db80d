//! Integration tests: one binary, real PostgreSQL, real processes.

mod cli_plan;
mod harness;
mod report;
mod run;
mod store;
mod tidy;
