//! Tests of cli_plan.
