//! The grid again on the way of processors without oneDNN's products.

use std::env;
use std::process::Command;

#[test]
fn the_grid_holds_without_products_in_tiles() {
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["grid::", "huge::long", "--test-threads=2"])
        .env("SWEEP_KERNELS_TILES", "0")
        .output()
        .expect("this test starts again");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !words.contains(" 0 passed"), "{words}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_grid_holds_with_products_for_avx2() {
    if !(std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")) {
        return; // No processor of this kind.
    }
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["grid::", "huge::long", "--test-threads=2"])
        .env("SWEEP_KERNELS_TILES", "avx2")
        .output()
        .expect("this test starts again");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !words.contains(" 0 passed"), "{words}");
}
