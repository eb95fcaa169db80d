//! What holds for every problem.

use kernels::reference::{ClipOptions, Gradients, Problem, clip, clip_block, siglip, siglip_block};
use proptest::prelude::*;

use crate::support::{Owned, alike, clip_by_definition, joined, near, select};

/// A problem, ids (some negative, some equal), label smoothing and bias.
#[derive(Debug, Clone)]
struct Case {
    problem: Owned,
    ids: Vec<i64>,
    smoothing: f64,
    bias: f64,
    /// An order of the pairs.
    order: Vec<usize>,
}

impl Case {
    fn clip_options(&self) -> ClipOptions<'_> {
        ClipOptions { ids: Some(&self.ids), label_smoothing: self.smoothing }
    }

    /// Both losses of a problem under this case's ids.
    fn losses(&self, problem: &Problem) -> [Gradients; 2] {
        [clip(problem, &self.clip_options()), siglip(problem, self.bias, Some(&self.ids))]
    }
}

fn case() -> impl Strategy<Value = Case> {
    (1_usize..8, 1_usize..11).prop_flat_map(|(pairs, depth)| {
        let rows = || prop::collection::vec(-1.5..1.5, pairs * depth);
        let ids = prop::collection::vec(-1_i64..5, pairs);
        let order = Just((0..pairs).collect::<Vec<usize>>()).prop_shuffle();
        (rows(), rows(), 0.1..60.0, ids, prop_oneof![Just(0.0), 0.0..1.0], -12.0..5.0, order).prop_map(
            move |(images, texts, scale, ids, smoothing, bias, order)| Case {
                problem: Owned { images, texts, depth, scale },
                ids,
                smoothing,
                bias,
                order,
            },
        )
    })
}

proptest! {
    #[test]
    fn loss_is_the_definition(case in case()) {
        let problem = case.problem.as_problem();
        let found = clip(&problem, &case.clip_options());
        near(found.loss, clip_by_definition(&problem, &case.clip_options()), 1e-12, 1.0 + found.loss);
        prop_assert!(found.loss >= 0.0);
    }

    #[test]
    fn order_does_not_matter(case in case()) {
        let depth = case.problem.depth;
        let moved = case.problem.select(&case.order);
        let ids = case.order.iter().map(|&i| case.ids[i]).collect();
        let there = Case { ids, ..case.clone() }.losses(&moved.as_problem());
        for (here, there) in case.losses(&case.problem.as_problem()).into_iter().zip(there) {
            let images = select(&here.images, depth, &case.order);
            let texts = select(&here.texts, depth, &case.order);
            alike(&there, &Gradients { images, texts, ..here }, 1e-11, 1.0 + case.problem.scale);
        }
    }

    #[test]
    fn towers_are_alike(case in case()) {
        let there = case.losses(&case.problem.swapped().as_problem());
        for (here, there) in case.losses(&case.problem.as_problem()).into_iter().zip(there) {
            let swapped = Gradients { images: there.texts, texts: there.images, ..there };
            alike(&here, &swapped, 1e-11, 1.0 + case.problem.scale);
        }
    }

    #[test]
    fn distinct_ids_are_none(case in case()) {
        let problem = case.problem.as_problem();
        let ids: Vec<i64> = (10..).zip(&case.order).map(|(id, _)| id * 3).collect();
        let with = |ids| ClipOptions { ids, label_smoothing: case.smoothing };
        prop_assert_eq!(clip(&problem, &with(Some(&ids))), clip(&problem, &with(None)));
        prop_assert_eq!(siglip(&problem, case.bias, Some(&ids)), siglip(&problem, case.bias, None));
    }

    /// Length can move between a tower and the scale; and each gradient along its own argument is the same number.
    #[test]
    fn scale_and_length_are_one(case in case(), factor in 0.2..5.0) {
        let mut longer = case.problem.clone();
        longer.images.iter_mut().for_each(|value| *value *= factor);
        longer.scale /= factor;
        let there = case.losses(&longer.as_problem());
        let along = |gradient: &[f64], rows: &[f64]| gradient.iter().zip(rows).map(|(g, r)| g * r).sum::<f64>();
        for (here, there) in case.losses(&case.problem.as_problem()).into_iter().zip(there) {
            let images = there.images.iter().map(|value| value * factor).collect();
            let moved = Gradients { images, scale: there.scale / factor, ..there };
            alike(&here, &moved, 1e-11, 1.0 + case.problem.scale);
            let size = 1.0 + case.problem.scale * case.problem.pairs() as f64 * 25.0;
            near(along(&here.images, &case.problem.images), case.problem.scale * here.scale, 1e-12, size);
            near(along(&here.texts, &case.problem.texts), case.problem.scale * here.scale, 1e-12, size);
        }
    }

    #[test]
    fn blocks_add_up(case in case(), cut in 0.0..1.0) {
        let (problem, pairs) = (case.problem.as_problem(), case.problem.pairs());
        let first = (cut * (pairs + 1) as f64) as usize;
        let sizes = [first, pairs - first];
        let [whole_clip, whole_siglip] = case.losses(&problem);
        let parts = joined(pairs, &sizes, |rows| clip_block(&problem, &case.clip_options(), rows));
        alike(&parts, &whole_clip, 1e-13, 1.0 + case.problem.scale);
        let parts = joined(pairs, &sizes, |rows| siglip_block(&problem, case.bias, Some(&case.ids), rows));
        alike(&parts, &whole_siglip, 1e-13, 1.0 + case.problem.scale);
    }

    #[test]
    fn ignored_pairs_get_nothing(case in case()) {
        for found in case.losses(&case.problem.as_problem()) {
            for (i, _) in case.ids.iter().enumerate().filter(|(_, id)| **id < 0) {
                prop_assert!(select(&found.images, case.problem.depth, &[i]).iter().all(|&value| value == 0.0));
                prop_assert!(select(&found.texts, case.problem.depth, &[i]).iter().all(|&value| value == 0.0));
            }
        }
    }
}
