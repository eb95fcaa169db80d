//! Ranks in float64, as threads over TCP: what they train differs from one process by the order of sums alone, so by
//! 1e-12 at most. (Jobs train in fp32, where `tests/it/ranks.rs` asks for 1e-6.)

use std::net::TcpListener;
use std::thread;

use kernels::Compute;
use protocol::{Loss, ModelConfig, Schedule};

use super::*;
use crate::learning_rate::learning_rate;
use crate::step;

const PAIRS: i64 = 32;
const STEPS: u64 = 50;

fn model(loss: Loss) -> Clip {
    let (_, json) = protocol::shipped_model("cpu-w32-l2").expect("shipped");
    let mut config: ModelConfig = serde_json::from_str(json).expect("a model");
    if loss == Loss::Siglip {
        (config.init_logit_scale, config.init_logit_bias) = (Some(10_f64.ln()), Some(-10.0));
    }
    Clip::of_kinds(&config, Kind::Double, Kind::Double, 3, Device::Cpu)
}

/// The same pairs for every rank.
fn inputs(model: &Clip) -> Inputs {
    let noise = |seed: i64, count: i64| (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7 + seed).sin();
    let size = PAIRS * 17 * model.image.patch_values();
    let index = Tensor::arange(PAIRS * 9, (Kind::Int64, Device::Cpu));
    Inputs {
        patches: noise(1, size).view([PAIRS, 17, -1]),
        tokens: ((index * 2_654_435_761_i64).remainder(3999_i64) + 1_i64).view([PAIRS, 9]),
        ends: (Tensor::arange(PAIRS, (Kind::Int64, Device::Cpu)) * 5_i64).remainder(9_i64),
        kept: None,
    }
}

/// Parameters after 50 steps of one of several ranks, or of one process; and the last step's norm of the gradient.
fn trained(ring: Option<TcpRing>, (loss, parts): (Loss, u64)) -> (Tensor, f64) {
    let mut model = model(loss);
    let mut all = inputs(&model);
    let recipe = Recipe {
        loss,
        lr: 1e-3,
        schedule: Schedule::Cosine,
        grad_clip_norm: Some(1.0),
        ..crate::optimizer::tests::recipe()
    };
    let options = StepOptions { loss, compute: Compute::Automatic, accum_freq: parts };
    let mut optimizer = AdamW::new(&model.parameters);
    let mut ranks = ring.map(|ring| Ranks::over(ring, Device::Cpu).expect("a group"));
    if let Some(ranks) = &mut ranks {
        ranks.spread(&mut model.parameters, &mut optimizer, Start::default()).expect("a start");
        let rows = ranks.rows(PAIRS as u64);
        all = all.rows(rows.start as i64, rows.end as i64);
    }
    let mut norm = 0.0;
    for at in 0..STEPS {
        let lr = learning_rate(&recipe, at, STEPS);
        if let Some(ranks) = &mut ranks {
            let _loss = ranks.gradients(&model, &all, options).expect("gradients");
            let agreed = ranks.step(&mut model.parameters, &mut optimizer, (&recipe, lr), 1, false);
            norm = agreed.expect("a step").grad_norm;
        } else {
            let (_, gradients) = step::gradients(&model, &all, options).expect("gradients");
            norm = crate::optimizer::norm(&gradients).double_value(&[]);
            optimizer.step(&mut model.parameters, &gradients, &recipe, lr, 1);
        }
        model.clamp_logit_scale();
    }
    (model.parameters.flat, norm)
}

/// What each of several ranks ends with.
fn by_ranks(world: usize, how: (Loss, u64)) -> Vec<(Tensor, f64)> {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = socket.local_addr().expect("it is bound").to_string();
    thread::scope(|scope| {
        let limit = Duration::from_mins(5);
        let others = (1..world).map(|rank| {
            let address = &address;
            scope.spawn(move || trained(Some(TcpRing::connect(rank, world, address, limit).expect("a group")), how))
        });
        let others: Vec<_> = others.collect();
        let first = trained(Some(TcpRing::host(&socket, world, limit).expect("a group")), how);
        std::iter::once(first).chain(others.into_iter().map(|other| other.join().expect("a rank"))).collect()
    })
}

#[test]
fn in_float64_any_number_of_ranks_trains_the_same_parameters() {
    tch::set_num_threads(1);
    for how in [(Loss::Fused, 1), (Loss::Fused, 2), (Loss::Siglip, 1)] {
        let (alone, norm) = trained(None, how);
        assert_eq!(alone.kind(), Kind::Double);
        let start = model(how.0).parameters.flat;
        let size = |x: &Tensor| x.square().sum(Kind::Double).sqrt().double_value(&[]);
        assert!(size(&(&alone - &start)) > 0.01 * size(&start), "it learns");
        for world in [1, 2, 4] {
            let ended = by_ranks(world, how);
            assert_eq!(ended.len(), world);
            for (parameters, of_ranks) in &ended {
                let off = size(&(parameters - &alone)) / size(&alone);
                assert!(off < 1e-12, "{world} ranks, {how:?}: {off}");
                assert!((of_ranks - norm).abs() < 1e-10 * norm, "{world} ranks, {how:?}: {of_ranks}, {norm}");
                assert!(parameters.equal(&ended[0].0), "all ranks have the same bits");
            }
        }
    }
}
