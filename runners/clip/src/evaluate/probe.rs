//! Linear probes on image features, by CLIP_benchmark's protocol: unit features, a linear layer, AdamW without warm-up
//! and with a cosine down to 0, cross-entropy. Learning rate and epochs are chosen first, without weight decay; then
//! weight decay, by its search over 97 values. A function of features, labels and seed.

use std::collections::BTreeMap;

use protocol::{Choose, Measurement, ProbePlan, Shots};
use rand::RngCore as _;
use tch::{Device, Kind, Tensor};

use super::{metrics, to_vec};
use crate::order::Draws;

/// Of a training set without a validation set, one image in so many is held out to choose on.
const HELD_OUT: usize = 5;

/// Weight decays that the search moves on: 10^-6 to 10^2, 12 a decade.
const DECAYS: usize = 97;

/// Images of VTAB's protocol: to train on and to choose on.
const VTAB_1K: [usize; 2] = [800, 200];

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// Images as a probe sees them.
pub(super) struct Features {
    /// Unit embeddings (N, E).
    pub(super) images: Tensor,
    /// Class of each.
    pub(super) labels: Vec<i64>,
}

impl Features {
    fn select(&self, rows: &[usize]) -> Features {
        let index: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let images = self.images.index_select(0, &Tensor::from_slice(&index).to_device(self.images.device()));
        Features { images, labels: rows.iter().map(|row| self.labels[*row]).collect() }
    }

    fn joined(&self, other: &Features) -> Features {
        let images = Tensor::cat(&[&self.images, &other.images], 0);
        Features { images, labels: [&self.labels[..], &other.labels].concat() }
    }

    fn shared(&self) -> Features {
        Features { images: self.images.shallow_clone(), labels: self.labels.clone() }
    }

    fn on(&self, device: Device) -> Features {
        Features { images: self.images.to_device(device), labels: self.labels.clone() }
    }

    fn len(&self) -> usize {
        self.labels.len()
    }
}

/// What one probe is trained with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    lr: f64,
    epochs: u64,
    weight_decay: f64,
}

/// What was measured, and in words what was chosen, or why a number of shots is left out.
#[derive(Default)]
pub(super) struct Probed {
    /// `lp_acc1@full` and so on.
    pub(super) measured: Vec<Measurement>,
    /// One sentence for each number of shots.
    pub(super) notes: Vec<String>,
    /// Those of them that say why nothing was measured.
    pub(super) left_out: Vec<String>,
}

/// Probes at every number of shots. Labels are not negative, and the highest of them fits into memory as a number of
/// classes.
pub(super) fn measure(
    plan: &ProbePlan,
    train: &Features,
    validation: Option<&Features>,
    test: &Features,
    device: Device,
) -> Probed {
    let (train, test) = (train.on(device), test.on(device));
    let validation = validation.filter(|_| plan.choose == Choose::Validation).map(|validation| validation.on(device));
    let classes_of = |data: &Features| data.labels.iter().max().map_or(0, |last| last + 1);
    // Before any split: the highest class may be in the part that is held out alone, and is trained on in the end.
    let classes = classes_of(&train).max(validation.as_ref().map_or(0, classes_of));
    let split = (plan.choose == Choose::Validation && validation.is_none()).then(|| {
        let (held_out, kept): (Vec<_>, Vec<_>) = (0..train.len()).partition(|row| row % HELD_OUT == HELD_OUT - 1);
        (train.select(&kept), train.select(&held_out))
    });
    let mut probed = Probed::default();
    for shots in &plan.shots {
        let suffix = shots.suffix();
        let examples = match (shots, &split) {
            (Shots::Vtab1k, _) => vtab_1k(&train, validation.as_ref(), plan.seed),
            (_, Some((kept, held_out))) => few(kept, Some(held_out), *shots, plan.seed),
            (_, None) => few(&train, validation.as_ref(), *shots, plan.seed),
        };
        let Examples { train, validation, last } = match examples {
            Ok(examples) => examples,
            Err(reason) => {
                let note = format!("{suffix}: left out: {reason}");
                probed.notes.push(note.clone());
                probed.left_out.push(note);
                continue;
            }
        };
        let fit = |data: &Features, settings: Settings| fit(data, classes, settings, plan.batch_size, plan.seed);
        let (settings, layer) = if let Some(validation) = &validation {
            let settings = best_on(validation, plan, |settings| fit(&train, settings));
            (settings, fit(last.as_ref().unwrap_or(&train), settings))
        } else {
            let tried = grid(plan).map(|settings| (settings, fit(&train, settings)));
            first_best(tried, |(_, layer)| hits(layer, &test))
        };
        let Settings { lr, epochs, weight_decay } = settings;
        let of = train.len();
        probed.notes.push(format!("{suffix}: {of} images, lr {lr}, {epochs} epochs, weight decay {weight_decay:.3e}"));
        probed.measured.extend(accuracies(&layer, &test, &suffix));
    }
    probed
}

/// What one probe sees.
struct Examples {
    train: Features,
    /// What its settings are chosen on; `None`: the test images.
    validation: Option<Features>,
    /// What it is trained on once nothing is left to choose; `None`: the same.
    last: Option<Features>,
}

/// So many images of each class, or all of them; a few shots stay a few in the end too.
fn few(data: &Features, validation: Option<&Features>, shots: Shots, seed: u64) -> Result<Examples, String> {
    let train = data.select(&chosen_shots(&data.labels, shots, seed)?);
    let last = validation.filter(|_| shots == Shots::All).map(|validation| train.joined(validation));
    Ok(Examples { train, validation: validation.map(Features::shared), last })
}

/// VTAB's 1,000 examples (Zhai et al. 2019): the first of a random order whatever their classes, 800 to train on and
/// 200 to choose on, which are the validation set's where there is one; then all of them.
fn vtab_1k(data: &Features, validation: Option<&Features>, seed: u64) -> Result<Examples, String> {
    let [of_train, of_validation] = VTAB_1K;
    let first = |data: &Features, count: usize, what: &str| {
        let mut rows = permutation(data.len(), seed, u64::MAX);
        if rows.len() < count {
            return Err(format!("it takes {count} images to {what}, and there are {}", rows.len()));
        }
        rows.truncate(count);
        Ok(rows)
    };
    let (train, validation) = if let Some(validation) = validation {
        let rows = first(data, of_train, "train on")?;
        (data.select(&rows), validation.select(&first(validation, of_validation, "choose on")?))
    } else {
        let rows = first(data, of_train + of_validation, "train on")?;
        (data.select(&rows[..of_train]), data.select(&rows[of_train..]))
    };
    let last = Some(train.joined(&validation));
    Ok(Examples { train, validation: Some(validation), last })
}

/// All settings without weight decay, in the order of the plan.
fn grid(plan: &ProbePlan) -> impl Iterator<Item = Settings> {
    plan.lr.iter().flat_map(|&lr| plan.epochs.iter().map(move |&epochs| Settings { lr, epochs, weight_decay: 0.0 }))
}

/// The settings that do best on `validation`: first of the grid, then the weight decay.
fn best_on(validation: &Features, plan: &ProbePlan, fit: impl Fn(Settings) -> Tensor) -> Settings {
    let score = |settings: Settings| hits(&fit(settings), validation);
    let (base, _) = first_best(grid(plan).map(|settings| (settings, score(settings))), |(_, hits)| *hits);
    let decayed = |at: usize| Settings { weight_decay: decay(at), ..base };
    let mut known = BTreeMap::new();
    let mut score_at = |at: usize| *known.entry(at).or_insert_with(|| score(decayed(at)));
    decayed(search(&mut score_at))
}

/// CLIP_benchmark's search for the peak: seven values over the whole range, then neighbours at 8, 4, 2 and 1 steps. Of
/// equal scores the first stays; of scores that are all 0, the smallest weight decay.
fn search(score: &mut impl FnMut(usize) -> i64) -> usize {
    let mut peak_of = |places: &[usize]| {
        let mut best = (0, 0);
        for at in places {
            let found = score(*at);
            if found > best.1 {
                best = (*at, found);
            }
        }
        best.0
    };
    let coarse: Vec<usize> = (0..DECAYS).step_by((DECAYS - 1) / 6).collect();
    let mut peak = peak_of(&coarse);
    for span in [8, 4, 2, 1] {
        peak = peak_of(&[peak.saturating_sub(span), peak, (peak + span).min(DECAYS - 1)]);
    }
    peak
}

fn decay(at: usize) -> f64 {
    10_f64.powf(-6.0 + 8.0 * at as f64 / (DECAYS - 1) as f64)
}

/// The first of those with the highest score.
fn first_best<T>(items: impl Iterator<Item = T>, score: impl Fn(&T) -> i64) -> T {
    items
        .reduce(|best, item| if score(&item) > score(&best) { item } else { best })
        .expect("a plan has learning rates and epochs")
}

/// Rows of the training set that a probe sees: all, or of a random order the first of each class.
fn chosen_shots(labels: &[i64], shots: Shots, seed: u64) -> Result<Vec<usize>, String> {
    let Shots::Each(count) = shots else { return Ok((0..labels.len()).collect()) }; // All.
    let mut taken: BTreeMap<i64, u64> = BTreeMap::new();
    let mut rows = permutation(labels.len(), seed, u64::MAX);
    rows.retain(|row| {
        let of_class = taken.entry(labels[*row]).or_default();
        *of_class += 1;
        *of_class <= count
    });
    match taken.iter().find(|(_, found)| **found < count) {
        Some((class, found)) => Err(format!("class {class} has {found} images to train on")),
        None => Ok(rows),
    }
}

/// 0 to `n` - 1 in an order that depends on seed and pass alone: by one random number each.
fn permutation(n: usize, seed: u64, pass: u64) -> Vec<usize> {
    let mut draws = Draws::new(seed, pass);
    let keys: Vec<u64> = (0..n).map(|_| draws.next_u64()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|row| keys[*row]);
    order
}

/// A trained layer (classes, E + 1): weights, and the bias as the last column.
fn fit(data: &Features, classes: i64, settings: Settings, batch_size: u64, seed: u64) -> Tensor {
    let device = data.images.device();
    let (images, labels) = (with_ones(&data.images), Tensor::from_slice(&data.labels).to_device(device));
    let (n, width) = (data.len(), images.size()[1]);
    let batch_size = (batch_size as usize).min(n.max(1));
    let steps = (n.div_ceil(batch_size) as u64 * settings.epochs) as f64;
    let mut layer = initial(classes, width, seed).to_device(device);
    let (mut mean, mut square) = (layer.zeros_like(), layer.zeros_like());
    let minus_one = Tensor::from(-1_f32).to_device(device);
    let mut step = 0_i32;
    for epoch in 0..settings.epochs {
        let order: Vec<i64> = permutation(n, seed, 1 + epoch).into_iter().map(|row| row as i64).collect();
        let order = Tensor::from_slice(&order).to_device(device);
        for start in (0..n).step_by(batch_size) {
            let size = batch_size.min(n - start) as i64;
            let rows = order.narrow(0, start as i64, size);
            let batch = images.index_select(0, &rows);
            let right = labels.index_select(0, &rows).view([size, 1]);
            // Gradient of the mean cross-entropy by the logits: softmax less the right class.
            let chances = batch.matmul(&layer.tr()).softmax(1, Kind::Float);
            let error = chances.scatter_add(1, &right, &minus_one.expand([size, 1], false)) / size as f64;
            let gradient = error.tr().matmul(&batch);

            let lr = 0.5 * (1.0 + (std::f64::consts::PI * f64::from(step) / steps).cos()) * settings.lr;
            step += 1;
            let corrections = (1.0 - BETAS.0.powi(step), 1.0 - BETAS.1.powi(step));
            mean = mean * BETAS.0 + &gradient * (1.0 - BETAS.0);
            square = square * BETAS.1 + gradient.square() * (1.0 - BETAS.1);
            let scale = square.sqrt() / corrections.1.sqrt() + EPS;
            layer = layer * (1.0 - lr * settings.weight_decay) - &mean / scale * (lr / corrections.0);
        }
    }
    layer
}

/// Uniform within 1 / sqrt(E), as PyTorch's linear layers begin.
fn initial(classes: i64, width: i64, seed: u64) -> Tensor {
    let bound = 1.0 / ((width - 1) as f64).sqrt();
    let mut draws = Draws::new(seed, 0);
    let weights: Vec<f32> = (0..classes * width).map(|_| ((2.0 * draws.uniform() - 1.0) * bound) as f32).collect();
    Tensor::from_slice(&weights).view([classes, width])
}

fn with_ones(images: &Tensor) -> Tensor {
    let n = images.size()[0];
    Tensor::cat(&[images, &Tensor::ones([n, 1], (Kind::Float, images.device()))], 1)
}

fn logits(layer: &Tensor, data: &Features) -> Tensor {
    with_ones(&data.images).matmul(&layer.tr())
}

/// How many images get their own class the highest score.
fn hits(layer: &Tensor, data: &Features) -> i64 {
    let labels = Tensor::from_slice(&data.labels).to_device(layer.device());
    logits(layer, data).argmax(1, false).eq_tensor(&labels).sum(Kind::Int64).int64_value(&[])
}

/// A class that the training set does not have is never right. `acc5` from six classes on, as CLIP_benchmark has it.
fn accuracies(layer: &Tensor, test: &Features, suffix: &str) -> Vec<Measurement> {
    let known = layer.size()[0] as usize;
    let scores = to_vec(&logits(layer, test).to_device(Device::Cpu));
    let labels: Vec<u32> = test.labels.iter().map(|label| *label as u32).collect();
    let last = labels.iter().max().copied().unwrap_or(0) as usize;
    let rank =
        |(label, row): (&u32, &[f32])| metrics::rank(row, |class| class == *label as usize).unwrap_or(usize::MAX);
    let ranks: Vec<usize> = labels.iter().zip(scores.chunks(known)).map(rank).collect();
    let mut measured = metrics::classification(&labels, &ranks, known.max(last + 1));
    measured.retain(|row| row.metric != "acc5" || (last >= 5 && known >= 5));
    for row in &mut measured {
        row.metric = format!("lp_{}@{suffix}", row.metric);
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_at_the_peak_of_one_hill() {
        for peak in 0..DECAYS {
            let mut tried = std::collections::BTreeSet::new();
            let found = search(&mut |at| {
                tried.insert(at);
                1_000 - (at as i64 - peak as i64).abs()
            });
            assert_eq!(found, peak);
            assert!(tried.len() <= 7 + 4 * 2, "{tried:?}");
        }
        assert_eq!(search(&mut |_| 0), 0, "nothing is right: the smallest");
        assert_eq!(search(&mut |_| 5), 0, "the first of equals");
        assert!((decay(0) - 1e-6).abs() < 1e-18 && (decay(96) - 100.0).abs() < 1e-9 && (decay(72) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn shots_are_so_many_of_each_class_or_none() {
        let labels: Vec<i64> = (0..40).map(|row| row % 4).collect();
        let rows = chosen_shots(&labels, Shots::Each(3), 1).expect("ten of each");
        let of = |class: i64| rows.iter().filter(|row| labels[**row] == class).count();
        assert_eq!([of(0), of(1), of(2), of(3)], [3; 4]);
        assert_ne!(chosen_shots(&labels, Shots::Each(3), 2), Ok(rows.clone()), "by the seed");
        let more = chosen_shots(&labels, Shots::Each(5), 1).expect("ten of each");
        assert!(rows.iter().all(|row| more.contains(row)), "fewer shots lie in more");
        let error = chosen_shots(&[0, 0, 3], Shots::Each(2), 0).unwrap_err();
        assert_eq!(error, "class 3 has 1 images to train on");
    }

    #[test]
    fn vtabs_examples_are_1000_whatever_their_classes() {
        tch::set_num_threads(1);
        // Class 5 is rare: so many of each class there are not.
        let mut data = drawn(1_300, 1);
        let rare: Vec<usize> = (0..data.len()).filter(|row| data.labels[*row] != 5 || row % 100 == 5).collect();
        data = data.select(&rare);
        let Examples { train, validation, last } = vtab_1k(&data, None, 3).expect("enough");
        let (validation, last) = (validation.expect("200"), last.expect("1,000"));
        assert_eq!([train.len(), validation.len(), last.len()], [800, 200, 1_000]);
        // Each image once: the same row of features is drawn by no two.
        let mut rows: Vec<Vec<u32>> =
            to_vec(&last.images).chunks(16).map(|row| row.iter().map(|value| value.to_bits()).collect()).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 1_000);
        assert_ne!(vtab_1k(&data, None, 4).expect("enough").train.labels, train.labels, "by the seed");
        let own = drawn(250, 2);
        let with_own = vtab_1k(&data, Some(&own), 3).expect("enough");
        assert!(with_own.train.labels == train.labels && with_own.validation.expect("200").len() == 200);
        let reason = vtab_1k(&drawn(999, 1), None, 3).err().expect("one is lacking");
        assert_eq!(reason, "it takes 1000 images to train on, and there are 999");
        assert!(vtab_1k(&data, Some(&drawn(199, 2)), 3).err().is_some_and(|reason| reason.contains("choose on")));

        let plan = ProbePlan { shots: vec![Shots::Vtab1k], ..plan(Choose::Validation) };
        let probed = measure(&plan, &data, None, &drawn(120, 9), Device::Cpu);
        assert_eq!(probed.measured[0].metric, "lp_acc1@vtab1k");
        assert!(probed.measured[0].value > 0.7, "{:?}", probed.measured);
    }

    /// Three classes by the sign and place of what sticks out of 16 numbers.
    fn drawn(n: usize, seed: u64) -> Features {
        let mut draws = Draws::new(seed, 9);
        let labels: Vec<i64> = (0..n).map(|row| (row % 6) as i64).collect();
        let numbers: Vec<f32> = labels
            .iter()
            .flat_map(|label| {
                (0..16).map(|at| f32::from(u8::from(at == *label)) * 1.2 + draws.uniform() as f32).collect::<Vec<_>>()
            })
            .collect();
        let images = Tensor::from_slice(&numbers).view([n as i64, 16]);
        let norms = images.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt();
        Features { images: images / norms, labels }
    }

    fn plan(choose: Choose) -> ProbePlan {
        let train = protocol::DataSource { pool: "p".into(), path: "p".into(), digest: "0".repeat(64) };
        let shots = vec![Shots::Each(1), Shots::Each(10), Shots::All, Shots::Each(1000)];
        let (lr, epochs) = (vec![0.1, 0.01], vec![2, 6]);
        ProbePlan { train, validation: None, shots, choose, lr, epochs, batch_size: 64, seed: 0 }
    }

    #[test]
    fn more_shots_are_more_accurate_and_the_same_again() {
        // Threads that wait for one another are all that more of them would be.
        tch::set_num_threads(1);
        for choose in [Choose::Validation, Choose::Test] {
            let (train, test) = (drawn(300, 1), drawn(120, 2));
            let probed = || measure(&plan(choose), &train, None, &test, Device::Cpu);
            let first = probed();
            let value = |metric: &str| first.measured.iter().find(|row| row.metric == metric).map(|row| row.value);
            let all = value("lp_acc1@full").expect("measured");
            assert!(all > 0.9 && all >= value("lp_acc1@10shot").expect("measured"), "{all}");
            assert!(value("lp_acc1@1shot").expect("measured") > 1.0 / 6.0);
            assert!(value("lp_acc5@full").is_some() && value("lp_mean_per_class_recall@full").is_some());
            assert_eq!(value("lp_acc1@1000shot"), None);
            assert!(first.notes[3].contains("1000shot: left out: class 0 has"), "{:?}", first.notes);
            assert_eq!(first.left_out, first.notes[3..]);
            let again = probed();
            assert_eq!((again.measured, again.notes), (first.measured, first.notes));
        }
    }

    #[test]
    fn a_class_may_be_in_the_images_to_choose_on_alone() {
        tch::set_num_threads(1);
        let plan = ProbePlan { shots: vec![Shots::All], ..plan(Choose::Validation) };
        let (mut train, mut validation, test) = (drawn(30, 1), drawn(12, 3), drawn(12, 2));
        let value = |probed: &Probed| probed.measured.iter().find(|row| row.metric == "lp_acc1@full").map(|m| m.chance);
        // Of 30 images, those in the places 4, 9, ... are held out.
        train.labels[9] = 9;
        let probed = measure(&plan, &train, None, &test, Device::Cpu);
        assert_eq!(value(&probed), Some(Some(0.1)), "10 classes");
        validation.labels[0] = 19;
        let probed = measure(&plan, &train, Some(&validation), &test, Device::Cpu);
        assert_eq!(value(&probed), Some(Some(0.05)), "20 classes");
    }
}
