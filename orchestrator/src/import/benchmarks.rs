//! What is known of public test sets: classes and items, for chance and for the noise of an evaluation.

use crate::store::import::ImportedEvaluation;

/// A classification set: name as CLIP_benchmark has it, classes, test items (0: not known for sure).
///
/// Items were checked against the published accuracies: accuracy x items is a whole number for every model.
const CLASSIFICATION: &[(&str, i64, i64)] = &[
    ("imagenet1k", 1000, 50_000),
    ("imagenetv2", 1000, 10_000),
    ("imagenet_sketch", 1000, 50_889),
    ("imagenet-a", 200, 7_500),
    ("imagenet-r", 200, 30_000),
    ("objectnet", 113, 18_574),
    ("mnist", 10, 10_000),
    ("cifar10", 10, 10_000),
    ("cifar100", 100, 10_000),
    ("stl10", 10, 8_000),
    ("gtsrb", 43, 12_630),
    ("country211", 211, 21_100),
    ("fgvc_aircraft", 100, 3_333),
    ("cars", 196, 8_041),
    ("sun397", 397, 108_754),
    ("fer2013", 7, 7_178),
    ("renderedsst2", 2, 1_821),
    ("voc2007", 20, 14_976),
    ("vtab/caltech101", 102, 0),
    ("vtab/cifar10", 10, 10_000),
    ("vtab/cifar100", 100, 10_000),
    ("vtab/svhn", 10, 26_032),
    ("vtab/dtd", 47, 1_880),
    ("vtab/eurosat", 10, 5_400),
    ("vtab/flowers", 102, 6_149),
    ("vtab/pets", 37, 3_669),
    ("vtab/resisc45", 45, 6_300),
    ("vtab/pcam", 2, 32_768),
    ("vtab/dmlab", 6, 22_735),
    ("vtab/clevr_count_all", 8, 15_000),
    ("vtab/clevr_closest_object_distance", 6, 15_000),
    ("vtab/diabetic_retinopathy", 5, 42_670),
    ("vtab/kitti_closest_vehicle_distance", 4, 711),
    ("vtab/dsprites_label_orientation", 40, 73_728),
    ("vtab/dsprites_label_x_position", 32, 73_728),
    ("vtab/smallnorb_label_azimuth", 18, 12_150),
    ("vtab/smallnorb_label_elevation", 9, 12_150),
];

/// A retrieval set: name, images, captions.
const RETRIEVAL: &[(&str, i64, i64)] =
    &[("mscoco_captions", 5_000, 25_010), ("flickr30k", 1_000, 5_000), ("flickr8k", 1_000, 5_000)];

/// A measurement at the end of training with chance, test items and binomial standard error where they are known.
///
/// Items of a retrieval: `image_retrieval_recall@k` is the fraction of captions whose image is among the k nearest,
/// `text_retrieval_recall@k` that of images with a caption among the k nearest (CLIP_benchmark's definitions).
pub(super) fn measured(dataset: &str, metric: &str, value: f64) -> ImportedEvaluation {
    let (chance, count) = known(dataset, metric);
    ImportedEvaluation {
        dataset: dataset.to_owned(),
        metric: metric.to_owned(),
        samples_seen: None,
        value,
        standard_error: count.and_then(|count| binomial(value, count)),
        chance,
        count,
    }
}

fn known(dataset: &str, metric: &str) -> (Option<f64>, Option<i64>) {
    let base = metric.split('@').next().unwrap_or(metric);
    let base = base.strip_prefix("lp_").unwrap_or(base);
    if let Some(&(_, classes, items)) = CLASSIFICATION.iter().find(|(name, ..)| *name == dataset) {
        let items = (items > 0).then_some(items);
        return match base {
            "acc1" => (Some(1.0 / classes as f64), items),
            "acc5" => (Some((5.0 / classes as f64).min(1.0)), items),
            // The mean over classes has no binomial noise over items.
            "mean_per_class_recall" => (Some(1.0 / classes as f64), None),
            _ => (None, None),
        };
    }
    if let Some(&(_, images, captions)) = RETRIEVAL.iter().find(|(name, ..)| *name == dataset) {
        let nearest: Option<f64> = metric.split_once('@').and_then(|(_, k)| k.parse().ok());
        return match base {
            "image_retrieval_recall" => (nearest.map(|k| (k / images as f64).min(1.0)), Some(captions)),
            "text_retrieval_recall" => (None, Some(images)),
            _ => (None, None),
        };
    }
    (None, None)
}

/// sqrt(p (1 - p) / n), for a fraction strictly between 0 and 1.
pub(super) fn binomial(value: f64, count: i64) -> Option<f64> {
    (count > 0 && value > 0.0 && value < 1.0).then(|| (value * (1.0 - value) / count as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_and_items() {
        let one = measured("imagenet1k", "acc1", 0.5);
        assert_eq!((one.chance, one.count), (Some(0.001), Some(50_000)));
        assert!((one.standard_error.expect("it has items") - 0.002_236).abs() < 1e-6);
        let one = measured("vtab/kitti_closest_vehicle_distance", "acc5", 1.0);
        assert_eq!((one.chance, one.standard_error), (Some(1.0), None));
        let one = measured("mscoco_captions", "image_retrieval_recall@5", 0.7);
        assert_eq!((one.chance, one.count), (Some(0.001), Some(25_010)));
        assert_eq!(measured("flickr30k", "text_retrieval_recall@5", 0.7).count, Some(1_000));
        assert_eq!(measured("imagenet1k", "lp_acc1@10shot", 0.7).count, Some(50_000));
        assert_eq!(measured("nowhere", "acc1", 0.7).chance, None);
    }
}
