//! That the kernels take the threads that torch is set to: seen in the threads of a process that did nothing else.
#![cfg(feature = "torch")]

use kernels::{Options, clip_loss};
use tch::{Device, Kind, Tensor};

#[test]
fn a_loss_takes_the_threads_of_torch() {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count);
    let Ok(_) = threads() else {
        return; // no Linux
    };
    tch::set_num_threads(2);
    // Small enough for libtorch's own loops to stay on one thread.
    let rows = Tensor::ones([256, 64], (Kind::Float, Device::Cpu)) / 8.0;
    let scale = Tensor::from(10.0_f32);
    let before = threads().expect("the threads of this process");
    let loss = clip_loss(&rows, &rows, &scale, &Options::default()).expect("a loss");
    assert!((loss.double_value(&[]) - 256.0_f64.ln()).abs() < 1e-5);
    assert_eq!(threads().expect("the threads of this process"), before + 1, "one more than before");
}
