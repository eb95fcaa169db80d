//! The grid again on the way of processors without oneDNN's products.

use crate::again::{again, again_with_avx2};

const GRID: [&str; 2] = ["grid::", "huge::long"];

#[test]
fn the_grid_holds_without_products_in_tiles() {
    again("0", &GRID);
}

#[test]
fn the_grid_holds_with_products_of_either_type_for_bfloat16() {
    again("fp32", &GRID);
    again("bf16", &GRID);
}

#[test]
fn the_grid_holds_with_products_for_avx2() {
    again_with_avx2(&GRID);
}
