//! Results to and from polars frames: CSV and Parquet. The only module that knows polars.
