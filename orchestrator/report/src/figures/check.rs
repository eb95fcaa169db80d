//! For tests: what every figure must keep to, whatever it is given, and input to try it with.

use proptest::prelude::*;

use super::FigureError;
use super::data::{Curve, Picture, Point, Role};
use super::png;

/// A text of a picture and its box in pixels: left, top, right, bottom.
pub(super) type Placed = (String, [f32; 4]);

/// The picture, drawn twice: the same bytes, every number finite, every shape and every text within the picture.
pub(super) fn sound(draw: impl Fn() -> Result<Picture, FigureError>) -> Picture {
    let picture = draw().expect("it can be drawn");
    assert_eq!(Ok(&picture), draw().as_ref().map_err(ToString::to_string), "the same input draws the same");
    let svg = picture.standalone();
    let tags = svg.split('<').map(|tag| tag.split('>').next().unwrap_or_default());
    for tag in tags.filter(|tag| !tag.starts_with("title") && !tag.starts_with("svg")) {
        assert!(!tag.contains("NaN") && !tag.contains("inf") && !tag.contains("2147483647"), "{tag}");
    }
    let tree = png::tree(&svg).expect("it is well-formed");
    let (wide, high) = (tree.size().width(), tree.size().height());
    let inside = |[left, top, right, bottom]: [f32; 4]| {
        left >= -0.5 && top >= -0.5 && right <= wide + 0.5 && bottom <= high + 0.5
    };
    for (text, bounds) in texts(&picture) {
        assert!(inside(bounds), "`{text}` at {bounds:?} is not within {wide} x {high}");
    }
    let bounds = tree.root().abs_bounding_box();
    assert!(inside([bounds.left(), bounds.top(), bounds.right(), bounds.bottom()]), "{bounds:?} in {wide} x {high}");
    picture
}

/// Every text with its box.
pub(super) fn texts(picture: &Picture) -> Vec<Placed> {
    fn walk(group: &resvg::usvg::Group, texts: &mut Vec<Placed>) {
        for node in group.children() {
            match node {
                resvg::usvg::Node::Group(group) => walk(group, texts),
                resvg::usvg::Node::Text(text) => {
                    let words = text.chunks().iter().map(resvg::usvg::TextChunk::text).collect::<String>();
                    let at = text.abs_bounding_box();
                    texts.push((words, [at.left(), at.top(), at.right(), at.bottom()]));
                }
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(png::tree(&picture.standalone()).expect("it is well-formed").root(), &mut found);
    found
}

/// Whether a text of the picture, or lines of a wrapped one, hold these words.
pub(super) fn says(picture: &Picture, words: &str) -> bool {
    let all: Vec<String> = texts(picture).into_iter().map(|(text, _)| text.trim().to_owned()).collect();
    all.join(" ").contains(words)
}

/// Pairs of texts that lie on each other.
pub(super) fn crowded(picture: &Picture) -> Vec<(Placed, Placed)> {
    let texts = texts(picture);
    let overlap = |a: &[f32; 4], b: &[f32; 4]| {
        let across = a[2].min(b[2]) - a[0].max(b[0]);
        let down = a[3].min(b[3]) - a[1].max(b[1]);
        across > 1.0 && down > 4.0
    };
    let mut pairs = Vec::new();
    for (number, one) in texts.iter().enumerate() {
        pairs.extend(
            texts[number + 1..].iter().filter(|two| overlap(&one.1, &two.1)).map(|two| (one.clone(), two.clone())),
        );
    }
    pairs
}

/// A number of any kind, most of them sensible.
pub(super) fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-3.0..13.0f64).prop_map(|power| 10f64.powf(power)),
        1 => -10.0..10.0f64,
        1 => proptest::sample::select(vec![
            f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::MIN, 1e99,
            -1e99, 1e-99, 1.0,
        ]),
    ]
}

/// Up to so many numbers of any kind.
pub(super) fn any_numbers(most: usize) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(any_number(), 0..=most)
}

/// A point of any kind.
pub(super) fn any_point() -> impl Strategy<Value = Point> {
    let role = proptest::sample::select(vec![Role::Fitted, Role::HeldOut, Role::Excluded]);
    let job = proptest::option::of(0..9usize);
    (any_number(), any_number(), "[a-z<&Ж]{0,30}", any_number(), "[0-9]{0,2}", role, job).prop_map(
        |(x, y, model, parameters, data, role, job)| Point {
            x,
            y,
            model,
            parameters,
            data,
            data_size: parameters,
            role,
            job,
        },
    )
}

/// A curve of any kind, with vectors of any length.
pub(super) fn any_curve() -> impl Strategy<Value = Curve> {
    (any_numbers(9), any_numbers(9), any_numbers(9), any_numbers(9)).prop_map(|(x, y, low, high)| Curve {
        x,
        y,
        low,
        high,
    })
}
