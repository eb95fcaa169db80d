//! Tests of this very program once more, as a processor with other products would run them.

use std::env;
use std::process::Command;

/// `products`: what `SWEEP_KERNELS_TILES` may be; `tests`: what their names have in them.
pub(crate) fn again(products: &str, tests: &[&str]) {
    let output = Command::new(env::current_exe().expect("this test"))
        .args(tests)
        .arg("--test-threads=2")
        .env("SWEEP_KERNELS_TILES", products)
        .output()
        .expect("this test starts again");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !words.contains(" 0 passed"), "{words}");
}

/// The same with products for AVX2, where a processor has it.
pub(crate) fn again_with_avx2(tests: &[&str]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        again("avx2", tests);
    }
}
